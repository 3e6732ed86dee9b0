//! The world: all entities, one tick at a time.

use twinspan_core::prefetch;
use twinspan_core::random::Stream;

use crate::authority::{Controls, Rules, Standing, SubmitError, Verdict};
use crate::config::{ConfigError, WorldConfig};
use crate::entity::{EntityState, Flags, Kind, Position};
use crate::event::{ActionRefused, EffectApplied};
use crate::grid::Grid;
use crate::header::OwnState;
use crate::id::EntityId;
use crate::input::Input;
use crate::movement::{self, Body};
use crate::roam;
use crate::store::{Store, state_of};

/// All entities and the rules that move them.
///
/// Between two [`World::step`]s, inputs and actions come in and entities come and go; the same
/// calls in the same order give the same world, bit for bit. Nothing allocates after the start.
#[derive(Clone, Debug)]
pub struct World {
    config: WorldConfig,
    rules: Rules,
    random: Stream,
    tick: u32,
    store: Store,
    /// Of each slot; only players use theirs.
    controls: Vec<Controls>,
    /// Of each slot: the last input that was applied or skipped, for states, which then need not
    /// touch the controls.
    last_inputs: Vec<u32>,
    grid: Grid,
    /// Whether the grid lists exactly the entities that live.
    grid_is_exact: bool,
    /// Entities of which some are told more than others.
    rules_count: usize,
}

/// Who sees an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stealth {
    /// Everybody in range.
    Visible,
    /// Itself and its team alone.
    Hidden,
}

/// Who knows an entity's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthPrivacy {
    /// Everybody who sees it.
    Public,
    /// Itself and its team alone.
    Private,
}

impl World {
    /// An empty world at tick 0; `random` steers NPCs, projectiles and where entities appear.
    ///
    /// # Errors
    /// The [`ConfigError`] that names the first measure out of range.
    pub fn new(config: WorldConfig, random: Stream) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self::empty(config, random))
    }

    /// An empty world with the measures of this one, which were checked.
    pub(crate) fn empty_alike(&self) -> Self {
        Self::empty(self.config.clone(), self.random.clone())
    }

    fn empty(config: WorldConfig, random: Stream) -> Self {
        Self {
            rules: Rules {
                side: config.side,
                claim_tolerance_mm: (config.claim_tolerance * 1_000.0) as u32,
            },
            random,
            tick: 0,
            store: Store::new(config.entities_max),
            controls: Vec::with_capacity(config.entities_max),
            last_inputs: vec![0; config.entities_max],
            grid: Grid::new(&config),
            grid_is_exact: true,
            rules_count: 0,
            config,
        }
    }

    /// Copies what states are made of, without allocating: not the players' inputs and standings,
    /// and not what decides who is given which slot. Both have the same measures.
    pub(crate) fn copy_seen(&mut self, from: &Self) {
        self.tick = from.tick;
        self.rules_count = from.rules_count;
        self.grid_is_exact = from.grid_is_exact;
        self.store.copy_seen(&from.store);
        self.grid.copy_seen(&from.grid);
        let slots = from.slots();
        if let (Some(to), Some(from)) =
            (self.last_inputs.get_mut(..slots), from.last_inputs.get(..slots))
        {
            to.copy_from_slice(from);
        }
    }

    /// One past the highest slot ever used.
    pub(crate) const fn slots(&self) -> usize {
        self.store.ids.len()
    }

    /// The measures of this world.
    pub const fn config(&self) -> &WorldConfig {
        &self.config
    }

    /// Steps done so far.
    pub const fn tick(&self) -> u32 {
        self.tick
    }

    /// Entities that live.
    pub const fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether no entity lives.
    pub const fn is_empty(&self) -> bool {
        self.store.len() == 0
    }

    /// Lets a new entity appear at a place, cut to the world. It enters the grid with the next
    /// step.
    ///
    /// # Errors
    /// [`WorldFull`] when as many live as the configuration allows.
    pub fn spawn(&mut self, kind: Kind, at: Position) -> Result<EntityId, WorldFull> {
        let body = Body { position: self.inside(at), ..Body::default() };
        let body = roam::start(kind, body, &mut self.random);
        let full = WorldFull { entities_max: self.store.limit() };
        let id = self.store.insert(kind, body).ok_or(full)?;
        if let Some(last_input) = self.last_inputs.get_mut(id.index()) {
            *last_input = 0;
        }
        if id.index() == self.controls.len() {
            self.controls.push(Controls::default());
        } else if let Some(controls) = self.controls.get_mut(id.index()) {
            *controls = Controls::default();
        }
        self.grid_is_exact = false;
        Ok(id)
    }

    /// Lets a new entity appear somewhere on the ground.
    ///
    /// # Errors
    /// [`WorldFull`] when as many live as the configuration allows.
    pub fn spawn_anywhere(&mut self, kind: Kind) -> Result<EntityId, WorldFull> {
        let (x, z) = (self.random.unit() * self.config.side, self.random.unit() * self.config.side);
        self.spawn(kind, Position::ground(x, z))
    }

    /// Ends an entity; false when it was gone already.
    pub fn despawn(&mut self, id: EntityId) -> bool {
        let has_rule = self.store.traits(id).is_some_and(crate::store::Traits::has_rule);
        self.rules_count -= usize::from(has_rule);
        let removed = self.store.remove(id);
        self.grid_is_exact &= !removed;
        removed
    }

    /// Whether the entity lives.
    pub fn contains(&self, id: EntityId) -> bool {
        self.store.contains(id)
    }

    /// The entity's state, while it lives.
    pub fn entity(&self, id: EntityId) -> Option<EntityState> {
        self.store.state(id)
    }

    /// All entities, by slot.
    pub fn entities(&self) -> impl Iterator<Item = EntityState> {
        self.store.iter().map(|(id, body, traits)| state_of(id, body, traits))
    }

    /// Which entities are in which cell, as of the last step.
    pub const fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Puts an entity elsewhere, cut to the world, and rebuilds the grid; false when it is gone. A
    /// player's claims then do not count for two seconds.
    pub fn place(&mut self, id: EntityId, at: Position) -> bool {
        let position = self.inside(at);
        let Some(body) = self.store.body_mut(id) else { return false };
        body.position = position;
        if let Some(controls) = self.controls.get_mut(id.index()) {
            controls.on_placed();
        }
        self.rebuild_grid();
        true
    }

    /// Sets an entity's health; false when it is gone.
    pub fn set_health(&mut self, id: EntityId, health: u8) -> bool {
        self.store.traits_mut(id).is_some_and(|traits| {
            traits.health = health;
            true
        })
    }

    /// Puts an entity on a side; 0 is nobody's. False when it is gone.
    pub fn set_team(&mut self, id: EntityId, team: u8) -> bool {
        self.store.traits_mut(id).is_some_and(|traits| {
            traits.team = team;
            true
        })
    }

    /// The side that an entity is on; 0 when it is on nobody's or is gone.
    pub fn team(&self, id: EntityId) -> u8 {
        self.store.traits(id).map_or(0, |traits| traits.team)
    }

    /// Hides an entity from all but itself and its team, or shows it again; false when it is gone.
    pub fn set_stealth(&mut self, id: EntityId, stealth: Stealth) -> bool {
        self.set_rule(id, |traits| traits.is_stealthy = stealth == Stealth::Hidden)
    }

    /// Keeps an entity's health from all but itself and its team, who see it as unhurt, or tells it
    /// again; false when it is gone.
    pub fn set_health_privacy(&mut self, id: EntityId, privacy: HealthPrivacy) -> bool {
        let is_private = privacy == HealthPrivacy::Private;
        self.set_rule(id, |traits| traits.has_private_health = is_private)
    }

    fn set_rule(&mut self, id: EntityId, change: impl FnOnce(&mut crate::store::Traits)) -> bool {
        let Some(traits) = self.store.traits_mut(id) else { return false };
        let had_rule = traits.has_rule();
        change(traits);
        match (had_rule, traits.has_rule()) {
            (false, true) => self.rules_count += 1,
            (true, false) => self.rules_count -= 1,
            _ => {}
        }
        true
    }

    /// Whether some are told more of anybody than others are.
    pub(crate) const fn has_rules(&self) -> bool {
        self.rules_count > 0
    }

    /// Takes an input for a player; of a bundle, the oldest first. It is applied by a later step;
    /// what comes back on success is what the last step showed, see [`World::verdict`].
    ///
    /// # Errors
    /// [`SubmitError::NoPlayer`], [`SubmitError::Old`] for what is known already, as most repeated
    /// inputs are, [`SubmitError::Flooded`] for what time does not allow.
    pub fn submit(&mut self, id: EntityId, input: Input) -> Result<Verdict, SubmitError> {
        self.controls_mut(id).ok_or(SubmitError::NoPlayer)?.submit(input)
    }

    /// Makes a player's inputs begin anew, for a client that came back and counts from 1; what is held
    /// against the player stays.
    pub fn restart_inputs(&mut self, id: EntityId) {
        if let Some(controls) = self.controls_mut(id) {
            controls.restart();
        }
    }

    /// Wishes for the memory that an input of this player needs.
    pub fn prefetch(&self, id: EntityId) {
        if let Some(controls) = self.controls.get(id.index()) {
            prefetch::value(controls);
        }
    }

    /// The sequence of the last of a player's inputs that the last step knew of; 0 before the first.
    pub fn last_input(&self, id: EntityId) -> u32 {
        let is_here = self.store.contains(id);
        self.last_inputs.get(id.index()).copied().filter(|_| is_here).unwrap_or(0)
    }

    /// Wishes for the memory that this player's state needs.
    pub fn prefetch_state(&self, id: EntityId) {
        if let Some(body) = self.store.bodies.get(id.index()) {
            prefetch::value(body);
        }
        if let Some(traits) = self.store.traits.get(id.index()) {
            prefetch::value(traits);
        }
    }

    /// What the last step showed about a player; [`Verdict::Honest`] for whatever is no player.
    pub fn verdict(&self, id: EntityId) -> Verdict {
        self.player(id).map_or(Verdict::Honest, Controls::verdict)
    }

    /// How a player's inputs have fared.
    pub fn standing(&self, id: EntityId) -> Option<Standing> {
        self.player(id).map(Controls::standing)
    }

    /// What a player is told about itself, exactly.
    pub fn own_state(&self, id: EntityId) -> Option<OwnState> {
        let EntityState { id, position, flags, health, .. } = self.entity(id)?;
        let side_m = self.config.side_metres();
        Some(OwnState { id, position, flags, health, side_m })
    }

    /// Puts [`Flags::HASTE`] on `target` for the configured time, or prolongs it.
    ///
    /// # Errors
    /// The [`ActionRefused`] that names the rule: both must live, the target must walk and be in
    /// range, the actor must have rested.
    pub fn apply_effect(
        &mut self,
        actor: EntityId,
        target: EntityId,
    ) -> Result<EffectApplied, ActionRefused> {
        let acting = self.store.state(actor).ok_or(ActionRefused::NoActor)?;
        let aimed_at = self.store.state(target).ok_or(ActionRefused::NoTarget)?;
        let range = self.config.effect_range;
        let distance_squared = acting.position.ground_distance_squared(aimed_at.position);
        if distance_squared > range * range {
            return Err(ActionRefused::OutOfRange);
        }
        // After the range: of what is out of sight nobody learns the kind.
        if aimed_at.kind == Kind::Projectile {
            return Err(ActionRefused::NotAffected);
        }
        let traits = self.store.traits_mut(actor).ok_or(ActionRefused::NoActor)?;
        if self.tick < traits.ready_at {
            return Err(ActionRefused::CoolingDown);
        }
        traits.ready_at = self.tick.saturating_add(self.config.effect_cooldown_ticks);
        let until_tick = self.tick.saturating_add(self.config.effect_ticks);
        let traits = self.store.traits_mut(target).ok_or(ActionRefused::NoTarget)?;
        let is_new = !traits.flags.contains(Flags::HASTE);
        traits.flags |= Flags::HASTE;
        traits.effect_until = until_tick;
        if is_new && let Some(controls) = self.controls_mut(target) {
            controls.on_effect_changed();
        }
        Ok(EffectApplied { until_tick })
    }

    /// One tick: effects end, players follow their inputs, NPCs wander, projectiles fly, the grid
    /// is rebuilt.
    pub fn step(&mut self) {
        self.tick = self.tick.saturating_add(1);
        let Self { store, controls, last_inputs, random, rules, tick, .. } = self;
        let slots = store.ids.iter().zip(&mut store.bodies).zip(&mut store.traits);
        for (((id, body), traits), (controls, last)) in
            slots.zip(controls.iter_mut().zip(last_inputs))
        {
            if id.is_none() {
                continue;
            }
            if traits.flags.contains(Flags::HASTE) && *tick >= traits.effect_until {
                traits.flags = traits.flags.with(Flags::HASTE, false);
                controls.on_effect_changed();
            }
            match traits.kind {
                Kind::Player => {
                    controls.tick(body, traits.flags, *rules);
                    *last = controls.standing().last_input;
                }
                Kind::Npc => roam::wander(body, traits.flags, rules.side, random),
                Kind::Projectile => roam::bounce(body, rules.side),
            }
        }
        self.rebuild_grid();
    }

    /// Checks what must hold between any two calls; used by tests and by servers now and then.
    ///
    /// # Errors
    /// The [`InvariantBroken`] that was found first: a defect of this crate.
    pub fn check_invariants(&self) -> Result<(), InvariantBroken> {
        if !self.store.is_consistent() || self.controls.len() != self.store.ids.len() {
            return Err(InvariantBroken::Slots);
        }
        for (id, body, _) in self.store.iter() {
            if body.position != self.cut(body.position) || !body.velocity.is_finite() {
                return Err(InvariantBroken::Outside { id });
            }
        }
        let mut listed = 0;
        for cell in self.grid.cells() {
            let mut before = None;
            for id in self.grid.cell(cell) {
                let Some(entity) = self.store.state(*id) else { continue };
                let in_order = before.is_none_or(|before| before < *id);
                if self.grid.cell_of(entity.position) != cell || !in_order {
                    return Err(InvariantBroken::WrongCell { id: *id });
                }
                before = Some(*id);
                listed += 1;
            }
        }
        if self.grid_is_exact && (listed != self.store.len() || listed != self.grid.len()) {
            return Err(InvariantBroken::Unlisted { listed, living: self.store.len() });
        }
        Ok(())
    }

    /// Spoils what the world keeps of its entities, so that tests see it noticed. What was spoilt of the
    /// grid lasts until the next step.
    #[doc(hidden)]
    pub fn spoil(&mut self, part: SpoiltPart) {
        match part {
            SpoiltPart::Store => self.store.spoil(),
            SpoiltPart::Grid => self.grid.rebuild(core::iter::empty()),
        }
    }

    /// Every entity with its body and traits; for the codec.
    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    fn rebuild_grid(&mut self) {
        self.grid.rebuild(self.store.iter().map(|(id, body, _)| (id, body.position)));
        self.grid_is_exact = true;
    }

    fn player(&self, id: EntityId) -> Option<&Controls> {
        let is_player = self.store.traits(id)?.kind == Kind::Player;
        self.controls.get(id.index()).filter(|_| is_player)
    }

    fn controls_mut(&mut self, id: EntityId) -> Option<&mut Controls> {
        let is_player = self.store.traits(id)?.kind == Kind::Player;
        self.controls.get_mut(id.index()).filter(|_| is_player)
    }

    fn cut(&self, at: Position) -> Position {
        let side = self.config.side;
        Position {
            x: movement::inside(at.x, side),
            y: movement::cut(at.y, movement::HEIGHT_MAX),
            z: movement::inside(at.z, side),
        }
    }

    /// `at` cut to the world, on the nearest place that a player can stand at.
    fn inside(&self, at: Position) -> Position {
        let side = self.config.side;
        Position {
            x: movement::inside(movement::on_place(at.x), side),
            y: movement::cut(movement::on_place(at.y), movement::HEIGHT_MAX),
            z: movement::inside(movement::on_place(at.z), side),
        }
    }
}

/// As many entities live as the configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("world holds {entities_max} entities already")]
pub struct WorldFull {
    /// How many that are.
    pub entities_max: usize,
}

/// What [`World::spoil`] spoils.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoiltPart {
    /// The account of who lives.
    Store,
    /// The lists of who is where.
    Grid,
}

/// Something that must always hold does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvariantBroken {
    /// Ids, slots and free list disagree.
    #[error("ids, slots and free list disagree")]
    Slots,
    /// An entity is outside the world, or nowhere.
    #[error("entity {id} is outside the world")]
    Outside {
        /// Which.
        id: EntityId,
    },
    /// An entity is listed in a cell in which it is not, or twice.
    #[error("entity {id} is listed in a wrong cell or twice")]
    WrongCell {
        /// Which.
        id: EntityId,
    },
    /// The grid does not list every entity once.
    #[error("grid lists {listed} entities of {living}")]
    Unlisted {
        /// Entities found in cells.
        listed: usize,
        /// Entities that live.
        living: usize,
    },
}

#[cfg(test)]
mod tests;
