//! Chat and instant messages: what their numbers mean, and what their buckets hold.

use uuid::Uuid;

use super::{ContentError, within};
use crate::field::{Field, TooLong, Var2};
use crate::wire::Reader;

/// A number of the wire with names for those that are known.
macro_rules! named {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $wire:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// Another number.
            Other(u8),
        }

        impl $name {
            /// What a number means.
            pub const fn from_wire(number: u8) -> Self {
                match number {
                    $($wire => Self::$variant,)*
                    number => Self::Other(number),
                }
            }

            /// Its number.
            pub const fn wire(self) -> u8 {
                match self {
                    $(Self::$variant => $wire,)*
                    Self::Other(number) => number,
                }
            }
        }
    };
}

named! {
    /// How something is said.
    ChatType {
        /// To be heard 10 m away.
        Whisper = 0,
        /// To be heard 20 m away.
        Normal = 1,
        /// To be heard 100 m away.
        Shout = 2,
        /// Out of character.
        OutOfCharacter = 3,
        /// Somebody begins to type; no text.
        StartTyping = 4,
        /// Somebody stopped to type; no text.
        StopTyping = 5,
        /// A script's error.
        Debug = 6,
        /// To be heard in the whole region.
        Region = 7,
        /// From an object to its owner.
        Owner = 8,
        /// From an object to one avatar.
        Direct = 9,
    }
}

named! {
    /// Who says something.
    ChatSource {
        /// The simulator.
        System = 0,
        /// An avatar.
        Agent = 1,
        /// An object.
        Object = 2,
    }
}

named! {
    /// Whether somebody is near enough to be heard. On the wire -1, 0 and 1.
    Audible {
        /// Too far away.
        Not = 255,
        /// Just so.
        Barely = 0,
        /// Near enough.
        Fully = 1,
    }
}

named! {
    /// Whether an instant message waited for its receiver.
    Offline {
        /// It did not.
        Online = 0,
        /// It waited.
        Offline = 1,
    }
}

named! {
    /// What an instant message is.
    Dialog {
        /// From one avatar to another.
        Message = 0,
        /// To be shown in a box.
        MessageBox = 1,
        /// An invitation to a group; see [`GroupInvitation`].
        GroupInvitation = 3,
        /// An avatar offers an item; see [`InventoryOffer`].
        InventoryOffered = 4,
        /// The offer is taken.
        InventoryAccepted = 5,
        /// The offer is not taken.
        InventoryDeclined = 6,
        /// A vote in a group.
        GroupVote = 7,
        /// An object offers an item.
        TaskInventoryOffered = 9,
        /// That offer is taken.
        TaskInventoryAccepted = 10,
        /// That offer is not taken.
        TaskInventoryDeclined = 11,
        /// Something for somebody new.
        NewUserDefault = 12,
        /// Invites to a session.
        SessionInvite = 13,
        /// Invites to a session in which the inviter is not.
        SessionPeerToPeerInvite = 14,
        /// Begins a session of a group.
        SessionGroupStart = 15,
        /// Begins a session of several avatars.
        SessionConferenceStart = 16,
        /// Says something in a session.
        SessionSend = 17,
        /// Leaves a session.
        SessionLeave = 18,
        /// From an object.
        FromTask = 19,
        /// An answer of somebody who is busy.
        BusyAutoResponse = 20,
        /// To be shown in the console as well.
        ConsoleAndChatHistory = 21,
        /// An offer to teleport to the sender; the text behind the message names the place.
        TeleportOffered = 22,
        /// That offer is taken.
        TeleportAccepted = 23,
        /// That offer is not taken.
        TeleportDeclined = 24,
        /// An order to teleport to the sender.
        GodlikeTeleportOffered = 25,
        /// A wish to be offered a teleport.
        TeleportRequested = 26,
        /// An address to open.
        GotoUrl = 28,
        /// From an object, to be shown as an alert.
        FromTaskAsAlert = 31,
        /// A notice of a group; see [`GroupNotice`].
        GroupNotice = 32,
        /// The notice's item is taken.
        GroupNoticeInventoryAccepted = 33,
        /// The notice's item is not taken.
        GroupNoticeInventoryDeclined = 34,
        /// The invitation to a group is taken.
        GroupInvitationAccepted = 35,
        /// The invitation to a group is not taken.
        GroupInvitationDeclined = 36,
        /// A notice that was asked for.
        GroupNoticeRequested = 37,
        /// An offer of friendship.
        FriendshipOffered = 38,
        /// That offer is taken.
        FriendshipAccepted = 39,
        /// That offer is not taken.
        FriendshipDeclined = 40,
        /// The sender begins to type.
        TypingStart = 41,
        /// The sender stopped to type.
        TypingStop = 42,
    }
}

/// The bucket of an offer by an avatar: what is offered. An offer of a folder tells what is in it,
/// item by item, behind the folder itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InventoryOffer {
    /// The type of the asset; 8 is a folder.
    pub asset_type: u8,
    /// The item, or the folder.
    pub id: Uuid,
}

impl InventoryOffer {
    const BYTES: usize = 17;

    /// Reads everything that is offered.
    ///
    /// # Errors
    /// [`ContentError::Length`] unless there is at least one, and all are whole.
    pub fn read_all(bucket: &[u8]) -> Result<impl Iterator<Item = Self>, ContentError> {
        let (all, rest) = bucket.as_chunks::<{ Self::BYTES }>();
        if all.is_empty() || !rest.is_empty() {
            let what = "the bucket of an offer";
            return Err(ContentError::Length { what, have: bucket.len() });
        }
        Ok(all.iter().map(|[asset_type, id @ ..]| Self {
            asset_type: *asset_type,
            id: Uuid::from_bytes(*id),
        }))
    }

    /// The bucket of an offer of all these.
    ///
    /// # Errors
    /// [`TooLong`] for more than 3,855.
    pub fn to_bucket(offers: &[Self]) -> Result<Var2, TooLong> {
        let one = |offer: &Self| [&[offer.asset_type], offer.id.as_bytes().as_slice()].concat();
        Var2::new(offers.iter().flat_map(one).collect::<Vec<u8>>())
    }
}

/// The bucket of an invitation to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupInvitation {
    /// What membership costs, in Linden dollars.
    pub fee: i32,
    /// The role that is offered.
    pub role: Uuid,
}

impl GroupInvitation {
    /// Reads the bucket.
    ///
    /// # Errors
    /// [`ContentError::Length`]
    pub fn read(bucket: &[u8]) -> Result<Self, ContentError> {
        let wrong =
            ContentError::Length { what: "the bucket of an invitation", have: bucket.len() };
        let bucket: &[u8; 20] = bucket.try_into().map_err(|_| wrong)?;
        let [a, b, c, d, role @ ..] = *bucket;
        // The one number of buckets that is big-endian.
        Ok(Self { fee: i32::from_be_bytes([a, b, c, d]), role: Uuid::from_bytes(role) })
    }

    /// The bucket.
    pub fn to_bucket(self) -> Vec<u8> {
        [&self.fee.to_be_bytes()[..], self.role.as_bytes()].concat()
    }
}

/// The longest name of a notice's item that [`GroupNotice::to_bucket`] writes.
pub const GROUP_NOTICE_NAME_BYTES_MAX: usize = 255;

/// The bucket of a group's notice, as viewers receive it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNotice {
    /// The type of the asset that comes with it, if one does.
    pub asset_type: Option<u8>,
    /// The group.
    pub group: Uuid,
    /// The name of the item.
    pub item_name: String,
}

impl GroupNotice {
    /// Reads the bucket; what is not UTF-8 in the name is replaced.
    ///
    /// # Errors
    /// [`ContentError::Short`]
    pub fn read(bucket: &[u8]) -> Result<Self, ContentError> {
        let short = within("the bucket of a notice");
        let mut reader = Reader::new(bucket);
        let has_item = bool::read(&mut reader).map_err(&short)?;
        let asset_type = u8::read(&mut reader).map_err(&short)?;
        let group = Field::read(&mut reader).map_err(&short)?;
        let name = reader.rest();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Self {
            asset_type: has_item.then_some(asset_type),
            group,
            item_name: String::from_utf8_lossy(name).into_owned(),
        })
    }

    /// The bucket.
    ///
    /// # Errors
    /// [`TooLong`] when the name has more than [`GROUP_NOTICE_NAME_BYTES_MAX`] bytes.
    pub fn to_bucket(&self) -> Result<Vec<u8>, TooLong> {
        let count = self.item_name.len();
        if count > GROUP_NOTICE_NAME_BYTES_MAX {
            return Err(TooLong { count, max: GROUP_NOTICE_NAME_BYTES_MAX });
        }
        let head = [self.asset_type.is_some().into(), self.asset_type.unwrap_or_default()];
        Ok([&head[..], self.group.as_bytes(), self.item_name.as_bytes(), &[0]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for number in 0..=255 {
            assert_eq!(ChatType::from_wire(number).wire(), number);
            assert_eq!(ChatSource::from_wire(number).wire(), number);
            assert_eq!(Audible::from_wire(number).wire(), number);
            assert_eq!(Offline::from_wire(number).wire(), number);
            assert_eq!(Dialog::from_wire(number).wire(), number);
        }
        assert_eq!(Dialog::from_wire(22), Dialog::TeleportOffered);
        assert_eq!(ChatType::from_wire(1), ChatType::Normal);
    }

    #[test]
    fn buckets_come_back() {
        let offers = [
            InventoryOffer { asset_type: 8, id: Uuid::from_u128(1) },
            InventoryOffer { asset_type: 0, id: Uuid::from_u128(2) },
        ];
        let bucket = InventoryOffer::to_bucket(&offers).unwrap();
        assert_eq!(bucket.bytes().len(), 34);
        assert!(InventoryOffer::read_all(bucket.bytes()).unwrap().eq(offers));
        assert!(InventoryOffer::read_all(&bucket.bytes()[1..]).is_err());
        assert!(InventoryOffer::read_all(&[]).is_err());

        let invitation = GroupInvitation { fee: 258, role: Uuid::from_u128(3) };
        assert_eq!(invitation.to_bucket()[..4], [0, 0, 1, 2]);
        assert_eq!(GroupInvitation::read(&invitation.to_bucket()), Ok(invitation));
        assert!(GroupInvitation::read(&[0; 19]).is_err());

        let notice = GroupNotice {
            asset_type: Some(7),
            group: Uuid::from_u128(4),
            item_name: "A note".into(),
        };
        assert_eq!(GroupNotice::read(&notice.to_bucket().unwrap()), Ok(notice.clone()));
        assert!(GroupNotice::read(&[1; 17]).is_err());
        let long = GroupNotice { item_name: "x".repeat(256), ..notice };
        assert!(long.to_bucket().is_err());
    }
}
