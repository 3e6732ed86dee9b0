//! Bans that outlive the server: a file to which a line is added for each.
//!
//! A line is `USER UNTIL`, the user's number and the second since the Unix epoch at which the ban ends.
//! The later line of a user stands if it lasts longer. A last line without its end was being written
//! when the server died: it is cut off.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use twinspan_admission::BANS_MAX;
use twinspan_core::time::Timestamp;
use twinspan_session::UserId;

/// A file longer than this is no file of bans: a hundred times as many lines as bans are remembered.
const BYTES_MAX: u64 = BANS_MAX as u64 * 100 * 42;
/// By so many seconds an end may differ and be the same: the clocks are read one after the other.
const SLACK_S: u64 = 2;

/// Why bans cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BansError {
    /// The file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is no ban.
    #[error("{} line {line}: write a user's number and the second at which its ban ends", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// It is too long to be one of bans.
    #[error("{} is longer than {BYTES_MAX} bytes; remove the lines of bans that are over", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// An open file of bans.
#[derive(Debug)]
pub(super) struct BanFile {
    path: PathBuf,
    file: File,
    /// Who is in it, and until when.
    known: BTreeMap<u64, u64>,
}

impl BanFile {
    /// Opens the file, or makes it; with it, the bans that are not over.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<(UserId, u64)>), BansError> {
        let failed = |source| BansError::Io { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        (&mut file).take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(BansError::TooLong { path: path.to_owned() });
        }
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let known = parse(bytes.get(..whole).unwrap_or_default())
            .map_err(|line| BansError::Line { path: path.to_owned(), line })?;
        let now = unix_now_s();
        let banned = known.iter().filter(|(_, until)| **until > now);
        let banned = banned.map(|(user, until)| (UserId(*user), *until)).collect();
        Ok((Self { path: path.to_owned(), file, known }, banned))
    }

    /// Writes down those of `banned`, as they were at `at` of the server's clock, that are new or last
    /// longer than it was known.
    pub(super) fn keep(
        &mut self,
        at: Timestamp,
        banned: &[(u64, Timestamp)],
    ) -> Result<(), BansError> {
        self.keep_at(unix_now_s(), at, banned)
    }

    fn keep_at(
        &mut self,
        now_s: u64,
        at: Timestamp,
        banned: &[(u64, Timestamp)],
    ) -> Result<(), BansError> {
        let mut lines = String::new();
        let mut news = Vec::new();
        for (user, until) in banned.iter().filter(|(_, until)| *until > at) {
            let until_s = now_s.saturating_add(until.since(at).as_secs());
            if self.known.get(user).is_none_or(|known| until_s > known.saturating_add(SLACK_S)) {
                lines += &format!("{user} {until_s}\n");
                news.push((*user, until_s));
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        // What failed is not tried again every turn, but with the next ban.
        self.known.extend(news);
        written.map_err(|source| BansError::Io { path: self.path.clone(), source })
    }
}

/// Who is banned and until when, or the number of the first line that says nothing of the kind.
fn parse(bytes: &[u8]) -> Result<BTreeMap<u64, u64>, usize> {
    let mut bans = BTreeMap::new();
    for (number, line) in (1_usize..).zip(bytes.split(|byte| *byte == b'\n')) {
        if line.is_empty() {
            continue;
        }
        let ban = core::str::from_utf8(line).ok().and_then(|line| line.split_once(' '));
        let ban = ban.and_then(|(user, until)| Some((user.parse().ok()?, until.parse().ok()?)));
        let (user, until): (u64, u64) = ban.ok_or(number)?;
        let known = bans.entry(user).or_insert(until);
        *known = until.max(*known);
    }
    Ok(bans)
}

fn unix_now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("twinspan-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_secs(seconds))
    }

    #[test]
    fn bans_outlive_the_server_and_each_is_written_once() {
        let path = path("bans-once");
        let (mut file, banned) = BanFile::open(&path).unwrap();
        assert_eq!(banned, []);
        let far = u64::MAX / 4;
        for now in 0..3 {
            file.keep_at(far + now, at(now), &[(7, at(100)), (9, at(1))]).unwrap();
        }
        file.keep_at(far + 3, at(3), &[(7, at(500))]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("7 {}\n9 {}\n7 {}\n", far + 100, far + 1, far + 500));
        let (_, banned) = BanFile::open(&path).unwrap();
        assert_eq!(banned, [(UserId(7), far + 500), (UserId(9), far + 1)]);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_torn_line_is_cut_off_and_one_that_says_nothing_is_named() {
        let path = path("bans-torn");
        let far = u64::MAX / 4;
        fs::write(&path, format!("1 5\n2 {far}\n3 {far}")).unwrap();
        let (mut file, banned) = BanFile::open(&path).unwrap();
        assert_eq!(banned, [(UserId(2), far)], "one is over, one was torn");
        file.keep_at(far, at(0), &[(4, at(9))]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("1 5\n2 {far}\n4 {}\n", far + 9));
        for wrong in ["x 5", "5", "5 x", "5  6", "-1 5"] {
            fs::write(&path, format!("1 5\n{wrong}\n")).unwrap();
            let told = BanFile::open(&path).unwrap_err().to_string();
            assert!(told.contains(" line 2: write a user's number"), "{told}");
        }
        fs::remove_file(&path).unwrap();
    }
}
