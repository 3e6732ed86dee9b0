//! Tun devices: packets of the network layer to and from the kernel, without a network card.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::sys::attach_tun;

/// The longest packet of a device: what the length field of IP holds.
pub const TUN_PACKET_BYTES_MAX: usize = 65_535;

/// The other side of a tun device: what the kernel sends over the device is read here, and what is
/// written here the kernel receives. It goes when this is dropped.
///
/// The device appears in the network namespace of the calling thread, down and without an address;
/// it may be moved to another namespace, which this side does not notice. Making one takes the right
/// to configure networks (`CAP_NET_ADMIN`).
#[derive(Debug)]
pub struct Tun {
    file: File,
    name: String,
}

impl Tun {
    /// Makes the device `name`, of 1 to 15 bytes. Reading from it never waits.
    ///
    /// # Errors
    /// What the system says: there is no `/dev/net/tun`, the right is missing, the name is taken.
    pub fn open(name: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open("/dev/net/tun")?;
        attach_tun(file.as_fd(), name)?;
        Ok(Self { file, name: name.to_owned() })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes one packet that the kernel sent over the device; its length.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none, and what the system says.
    pub fn recv(&self, packet: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(packet)
    }

    /// Lets the kernel receive a packet.
    ///
    /// # Errors
    /// What the system says: the device is down, the packet is none.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        match (&self.file).write(packet)? {
            len if len == packet.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_name_of_fifteen_bytes_at_most() {
        for name in ["", "sixteen-bytes-ab"] {
            let error = Tun::open(name).unwrap_err();
            // Who has no right to open the driver's file is told that first.
            let kinds = [
                io::ErrorKind::InvalidInput,
                io::ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied,
            ];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
    }
}
