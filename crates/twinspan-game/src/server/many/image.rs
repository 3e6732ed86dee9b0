//! Images of ticks, in a ring that is used again and again.

use std::sync::Arc;

use twinspan_core::time::Timestamp;
use twinspan_world::{World, WorldImage};

use super::super::clock::DueTick;
use super::super::host::Host;

/// A tick as shards see it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(super) image: WorldImage,
    /// None before the first tick.
    pub(super) due: Option<DueTick>,
    /// When it was made, as states carry it.
    pub(super) made_at: Timestamp,
}

/// The images of a server. Each shard reads one and may have one waiting; the waiting ones are all
/// the same. So there is always one to write but for the moment in which a shard changes over.
pub(super) struct Ring {
    images: Vec<Arc<Published>>,
}

impl Ring {
    /// Images for so many shards, and the first of them: the world before its first tick.
    pub(super) fn new(world: &World, shards: usize, host: &mut Host) -> (Self, Arc<Published>) {
        let mut first =
            Published { image: WorldImage::new(world), due: None, made_at: Timestamp::START };
        host.copy_into(&mut first.image);
        let first = Arc::new(first);
        let more = (0..=shards).map(|_| {
            let image = WorldImage::new(world);
            Arc::new(Published { image, due: None, made_at: Timestamp::START })
        });
        let images = core::iter::once(Arc::clone(&first)).chain(more).collect();
        (Self { images }, first)
    }

    /// An image of this tick; none when all are being read.
    pub(super) fn publish(
        &mut self,
        made_at: Timestamp,
        due: DueTick,
        host: &mut Host,
    ) -> Option<Arc<Published>> {
        let is_free = |image: &mut Arc<Published>| Arc::get_mut(image).is_some();
        let index = self.images.iter_mut().position(is_free)?;
        let place = self.images.get_mut(index)?;
        let free = Arc::get_mut(place)?;
        host.copy_into(&mut free.image);
        (free.due, free.made_at) = (Some(due), made_at);
        Some(Arc::clone(place))
    }
}
