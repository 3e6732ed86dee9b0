//! How new the word is that a replica has about each span of ids in each cell.

use crate::grid::CellId;
use crate::header::StateHeader;

/// The most pieces over all cells. Beyond them each cell's pieces are joined, which refuses some
/// late records that could have been used and costs nothing else.
const PIECES_MAX: usize = 1_024;

/// Of which ids of a cell a word says everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) cell: CellId,
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Scope {
    /// All of a cell.
    pub(super) const fn whole(cell: CellId) -> Self {
        Self { cell, first: 0, last: u32::MAX }
    }
}

/// Of ids from `first` up to the next piece of the cell, words of tick `open` and later are news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    cell: CellId,
    first: u32,
    open: u32,
    /// Whether there ever was a word.
    is_told: bool,
}

/// For each subscribed cell, which tick a record must have to be news, per span of ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage {
    /// By cell, then by first id. A cell that is seen has a piece that begins at 0.
    pieces: Vec<Piece>,
    /// Where they are put together anew; without memory while none is lent.
    spare: Spare,
}

/// Memory that a [`Coverage`] needs while it changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Spare(Vec<Piece>);

impl Coverage {
    /// Takes memory for changes, which go without as well.
    pub(super) fn lend(&mut self, spare: Spare) {
        self.spare = spare;
    }

    /// Gives it back.
    pub(super) fn give_back(&mut self) -> Spare {
        core::mem::take(&mut self.spare)
    }

    /// What was put together takes effect.
    fn take_effect(&mut self) {
        self.pieces.clear();
        self.pieces.extend_from_slice(&self.spare.0);
    }

    /// Keeps what is known of the cells that `header` lists and begins with the others. An older
    /// word about those is refused: it dates from before they were left.
    pub(super) fn move_window(&mut self, header: &StateHeader) {
        let spare = &mut self.spare.0;
        spare.clear();
        for cell in header.cells() {
            let run = run(&self.pieces, cell);
            if run.is_empty() {
                spare.push(Piece { cell, first: 0, open: header.tick, is_told: false });
            } else {
                spare.extend_from_slice(run);
            }
        }
        self.take_effect();
    }

    /// Whether a record with this head is news anywhere in its span.
    pub(super) fn is_open(&self, head: &Scope, tick: u32) -> bool {
        spans(run(&self.pieces, head.cell)).any(|(piece, last)| {
            piece.open <= tick && piece.first <= head.last && head.first <= last
        })
    }

    /// Whether a record of the whole cell is news about everybody in it.
    pub(super) fn is_open_throughout(&self, cell: CellId, tick: u32) -> bool {
        let run = run(&self.pieces, cell);
        !run.is_empty() && run.iter().all(|piece| piece.open <= tick)
    }

    /// Whether a word of `tick` about this id in this cell is news.
    pub(super) fn is_open_at(&self, cell: CellId, id: u32, tick: u32) -> bool {
        let run = run(&self.pieces, cell);
        let after = run.partition_point(|piece| piece.first <= id);
        after.checked_sub(1).and_then(|at| run.get(at)).is_some_and(|piece| piece.open <= tick)
    }

    /// Whether every cell was told in full by words of `tick` or newer ones.
    pub(super) fn is_told_since(&self, tick: u32) -> bool {
        self.pieces.iter().all(|piece| piece.is_told && piece.open > tick)
    }

    /// The tick of the oldest word about the cell; `None` when part of it was told never.
    pub(super) fn told_at(&self, cell: CellId) -> Option<u32> {
        let run = run(&self.pieces, cell);
        let is_told = !run.is_empty() && run.iter().all(|piece| piece.is_told);
        run.iter().map(|piece| piece.open - 1).min().filter(|_| is_told)
    }

    /// Notes that a record with this head was taken in.
    pub(super) fn close(&mut self, head: &Scope, tick: u32) {
        let open = tick.saturating_add(1);
        let (start, end) = run_bounds(&self.pieces, head.cell);
        // Nearly always a cell has one piece and a record tells it whole.
        if head.first == 0
            && head.last == u32::MAX
            && end == start + 1
            && let Some(piece) = self.pieces.get_mut(start)
        {
            *piece = Piece { open: piece.open.max(open), is_told: true, ..*piece };
            return;
        }
        let spare = &mut self.spare.0;
        spare.clear();
        spare.extend_from_slice(self.pieces.get(..start).unwrap_or_default());
        for (piece, last) in spans(self.pieces.get(start..end).unwrap_or_default()) {
            let closed = Piece { open: piece.open.max(open), is_told: true, ..piece };
            if last < head.first || head.last < piece.first {
                push_joined(spare, piece);
                continue;
            }
            if piece.first < head.first {
                push_joined(spare, piece);
            }
            push_joined(spare, Piece { first: piece.first.max(head.first), ..closed });
            if head.last < last {
                push_joined(spare, Piece { first: head.last + 1, ..piece });
            }
        }
        spare.extend_from_slice(self.pieces.get(end..).unwrap_or_default());
        self.take_effect();
        if self.pieces.len() > PIECES_MAX {
            self.join_all();
        }
    }

    /// Leaves one piece per cell, closed as far as the newest of its pieces.
    fn join_all(&mut self) {
        self.pieces.dedup_by(|piece, kept| {
            let same = piece.cell == kept.cell;
            if same {
                kept.open = kept.open.max(piece.open);
                kept.is_told &= piece.is_told;
            }
            same
        });
    }
}

/// Appends a piece unless it continues the last one.
fn push_joined(pieces: &mut Vec<Piece>, piece: Piece) {
    let continues = |last: &Piece| {
        (last.cell, last.open, last.is_told) == (piece.cell, piece.open, piece.is_told)
    };
    if !pieces.last().is_some_and(continues) {
        pieces.push(piece);
    }
}

fn run_bounds(pieces: &[Piece], cell: CellId) -> (usize, usize) {
    let start = pieces.partition_point(|piece| piece.cell < cell);
    let rest = pieces.get(start..).unwrap_or_default();
    (start, start + rest.partition_point(|piece| piece.cell == cell))
}

/// The pieces of one cell.
fn run(pieces: &[Piece], cell: CellId) -> &[Piece] {
    let (start, end) = run_bounds(pieces, cell);
    pieces.get(start..end).unwrap_or_default()
}

/// The pieces of one cell, each with its last id.
fn spans(run: &[Piece]) -> impl Iterator<Item = (Piece, u32)> {
    let lasts = run.iter().skip(1).map(|next| next.first - 1).chain([u32::MAX]);
    run.iter().copied().zip(lasts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CELL: CellId = CellId { x: 4, z: 5 };

    fn head(first: u32, last: u32) -> Scope {
        Scope { cell: CELL, first, last }
    }

    fn coverage() -> Coverage {
        let other = CellId { x: 5, z: 5 };
        let piece = |cell| Piece { cell, first: 0, open: 10, is_told: false };
        Coverage { pieces: vec![piece(CELL), piece(other)], spare: Spare::default() }
    }

    #[test]
    fn pieces_with_the_same_word_are_joined() {
        let mut coverage = coverage();
        coverage.close(&head(0, 99), 20);
        coverage.close(&head(200, u32::MAX), 20);
        assert_eq!(run(&coverage.pieces, CELL).len(), 3);
        coverage.close(&head(100, 199), 20);
        assert_eq!(
            run(&coverage.pieces, CELL),
            [Piece { cell: CELL, first: 0, open: 21, is_told: true }]
        );
    }

    #[test]
    fn pieces_stay_below_their_limit() {
        let mut coverage = coverage();
        for index in 0..10 * PIECES_MAX as u32 {
            coverage.close(&head(index * 10, index * 10 + 4), 20 + index);
            assert!(coverage.pieces.len() <= PIECES_MAX);
            assert!(!coverage.is_open_at(CELL, index * 10, 20 + index), "what was told stays told");
        }
    }

    proptest! {
        /// Against one number per id, for a hundred ids.
        #[test]
        fn coverage_is_a_tick_per_id(
            records in proptest::collection::vec((0_u32..100, 0_u32..100, 5_u32..60), 1..60),
        ) {
            let mut coverage = coverage();
            let mut model = [10_u32; 100];
            for (a, b, tick) in records {
                let (first, last) = (a.min(b), a.max(b));
                let span = first as usize..=last as usize;
                let news = model[span.clone()].iter().any(|open| *open <= tick);
                prop_assert_eq!(coverage.is_open(&head(first, last), tick), news);
                coverage.close(&head(first, last), tick);
                model[span].iter_mut().for_each(|open| *open = tick.saturating_add(1).max(*open));
                for (id, open) in model.iter().enumerate() {
                    for tick in [*open - 1, *open] {
                        prop_assert_eq!(coverage.is_open_at(CELL, id as u32, tick), tick == *open);
                    }
                }
                prop_assert!(coverage.is_open_at(CELL, 100, 10));
                prop_assert!(!coverage.is_open_at(CELL, 100, 9));
                let other = CellId { x: 5, z: 5 };
                prop_assert!(coverage.is_open_at(other, 3, 10), "other cells are left alone");
            }
        }
    }
}
