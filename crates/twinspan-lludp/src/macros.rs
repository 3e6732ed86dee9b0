//! The macros that make messages of what the generated modules list.

/// A block: its fields in order, each with its type and its name in the protocol.
macro_rules! block {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $wire:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq)]
        pub struct $name {
            $(
                #[doc = concat!("`", $wire, "`.")]
                pub $field: $type,
            )*
        }

        impl Default for $name {
            #[inline]
            fn default() -> Self {
                Self { $($field: <$type as $crate::field::Field>::EMPTY,)* }
            }
        }

        impl $crate::message::Fields for $name {
            fn visit(&self, sink: &mut dyn FnMut(&'static str, $crate::field::ValueRef<'_>)) {
                $(sink($wire, $crate::field::Field::value(&self.$field));)*
            }
        }

        impl $crate::message::Block for $name {
            const FIELDS: &'static [$crate::layout::FieldLayout] =
                &[$($crate::message::field_layout::<$type>($wire),)*];
            const BYTES_MIN: usize = $crate::layout::bytes_min(<Self as $crate::message::Block>::FIELDS);

            #[inline]
            fn read(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::Short> {
                Ok(Self { $($field: <$type as $crate::field::Field>::read(reader)?,)* })
            }

            #[inline]
            fn write(
                &self,
                writer: &mut $crate::wire::Writer<'_>,
            ) -> Result<(), $crate::wire::EncodeError> {
                $($crate::field::Field::write(&self.$field, writer)?;)*
                Ok(())
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                $crate::message::debug_block(stringify!($name), self, f)
            }
        }
    };
}

/// A message: its number, its properties, and its blocks in order.
macro_rules! message {
    (
        $(#[$doc:meta])*
        $name:ident = $wire:literal, $trust:ident, $zero:literal, $deprecation:ident
        { $($field:ident: $type:ty = $block:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq)]
        pub struct $name {
            $(
                #[doc = concat!("`", $block, "`.")]
                pub $field: $type,
            )*
        }

        impl $crate::message::Message for $name {
            const LAYOUT: $crate::layout::MessageLayout = $crate::layout::MessageLayout {
                name: std::borrow::Cow::Borrowed(stringify!($name)),
                id: Self::ID,
                trust: $crate::layout::Trust::$trust,
                zero_coded: $zero,
                deprecation: $crate::layout::Deprecation::$deprecation,
                blocks: std::borrow::Cow::Borrowed(
                    const { &[$($crate::message::block_layout::<$type>($block),)*] },
                ),
            };
            const NAME: &'static str = stringify!($name);
            const ID: $crate::number::MessageId = $crate::number::MessageId::from_wire($wire);
            const ZERO_CODED: bool = $zero;

            fn read(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::Short> {
                let _ = &reader;
                Ok(Self { $($field: $crate::message::Blocks::read_all(reader)?,)* })
            }

            fn write(
                &self,
                writer: &mut $crate::wire::Writer<'_>,
            ) -> Result<(), $crate::wire::EncodeError> {
                let _ = &writer;
                $($crate::message::Blocks::write_all(&self.$field, writer)?;)*
                Ok(())
            }

            fn visit(&self, sink: &mut dyn FnMut(&'static str, &dyn $crate::message::Fields)) {
                let _ = &sink;
                $($crate::message::Blocks::each(&self.$field, &mut |block| sink($block, block));)*
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                $crate::message::debug_message(self, f)
            }
        }
    };
}

/// A block that borrows from the packet.
macro_rules! block_ref {
    (
        $(#[$doc:meta])*
        $name:ident<'a> of $owned:ident { $($field:ident: $type:ty = $wire:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq)]
        pub struct $name<'a> {
            $(
                #[doc = concat!("`", $wire, "`.")]
                pub $field: $type,
            )*
        }

        impl<'a> $crate::borrowed::BlockRef<'a> for $name<'a> {
            type Owned = $owned;

            #[inline]
            fn read_ref(
                reader: &mut $crate::wire::Reader<'a>,
            ) -> Result<Self, $crate::wire::Short> {
                Ok(Self { $($field: <$type as $crate::field::FieldRef<'a>>::read_ref(reader)?,)* })
            }

            fn owned(&self) -> $owned {
                $owned { $($field: $crate::field::FieldRef::owned(&self.$field),)* }
            }
        }

        impl core::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let owned = $crate::borrowed::BlockRef::owned(self);
                $crate::message::debug_block(stringify!($name), &owned, f)
            }
        }
    };
}

/// A message that borrows from the packet.
macro_rules! message_ref {
    (
        $(#[$doc:meta])*
        $name:ident<'a> of $owned:ident { $($field:ident: $type:ty = $block:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name<'a> {
            $(
                #[doc = concat!("`", $block, "`.")]
                pub $field: $type,
            )*
        }

        impl<'a> $crate::borrowed::MessageRef<'a> for $name<'a> {
            type Owned = $owned;

            #[inline]
            fn read_ref(
                reader: &mut $crate::wire::Reader<'a>,
            ) -> Result<Self, $crate::wire::Short> {
                Ok(Self { $($field: $crate::borrowed::BlocksOf::read_all_ref(reader)?,)* })
            }

            fn owned(&self) -> $owned {
                $owned { $($field: $crate::borrowed::BlocksOf::owned_all(&self.$field),)* }
            }
        }
    };
}

/// The enum of all messages.
macro_rules! any_message {
    ($($name:ident($held:ty) = $wire:literal,)*) => {
        /// Any message; the large ones stand in boxes.
        #[derive(Clone, PartialEq)]
        #[expect(missing_docs, reason = "each is named as its message")]
        pub enum AnyMessage {
            $($name($held),)*
        }

        /// What every message consists of, in the order of their numbers.
        pub static LAYOUTS: &[$crate::layout::MessageLayout] =
            &[$(<$name as $crate::message::Message>::LAYOUT,)*];

        impl AnyMessage {
            /// Reads the blocks of the message with this number; `None` when there is no such.
            pub(crate) fn read(
                id: $crate::number::MessageId,
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Option<Result<Self, $crate::wire::Short>> {
                Some(match id.wire() {
                    $($wire => match <$name as $crate::message::Message>::read(reader) {
                        Ok(message) => Ok(Self::$name(message.into())),
                        Err(short) => Err(short),
                    },)*
                    _ => return None,
                })
            }

            /// Writes the blocks.
            pub(crate) fn write(
                &self,
                writer: &mut $crate::wire::Writer<'_>,
            ) -> Result<(), $crate::wire::EncodeError> {
                use $crate::message::Message as _;
                match self {
                    $(Self::$name(message) => message.write(writer),)*
                }
            }

            /// Its number.
            pub const fn id(&self) -> $crate::number::MessageId {
                match self {
                    $(Self::$name(_) => <$name as $crate::message::Message>::ID,)*
                }
            }

            /// Tells the name of each block with its fields, in the order of the layout.
            pub fn visit(
                &self,
                sink: &mut dyn FnMut(&'static str, &dyn $crate::message::Fields),
            ) {
                use $crate::message::Message as _;
                match self {
                    $(Self::$name(message) => message.visit(sink),)*
                }
            }
        }

        $(impl From<$name> for AnyMessage {
            fn from(message: $name) -> Self {
                Self::$name(message.into())
            }
        })*

        impl core::fmt::Debug for AnyMessage {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self {
                    $(Self::$name(message) => core::fmt::Debug::fmt(message, f),)*
                }
            }
        }
    };
}

pub(crate) use any_message;
pub(crate) use block;
pub(crate) use block_ref;
pub(crate) use message;
pub(crate) use message_ref;
