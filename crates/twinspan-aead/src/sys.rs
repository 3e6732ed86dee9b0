//! The library's AEAD context in memory of our own: the calls, and nothing else.

use core::ptr;

use aws_lc_sys::{
    EVP_AEAD, EVP_AEAD_CTX, EVP_AEAD_CTX_cleanup, EVP_AEAD_CTX_init, EVP_AEAD_CTX_open,
    EVP_AEAD_CTX_seal, EVP_AEAD_CTX_zero, EVP_aead_aes_128_gcm, EVP_aead_aes_256_gcm,
    EVP_aead_chacha20_poly1305, OPENSSL_cleanse,
};
use twinspan_core::aead::{Cipher, NONCE_BYTES, OpenError, PacketKey, SECRET_BYTES, TAG_BYTES};
use twinspan_core::prefetch;

/// Bytes of a context: what AES-GCM touches from end to end.
const WHOLE: u16 = size_of::<EVP_AEAD_CTX>() as u16;

/// One cipher's key, ready for packets; wiped when it is dropped.
#[repr(align(64))]
pub struct LibraryKey {
    context: EVP_AEAD_CTX,
    /// Bytes from the start of `context` that a packet of this cipher touches.
    touched: u16,
}

// SAFETY: the context owns its key and points only to the library's immutable tables; the library
// lets a context be used from any thread.
unsafe impl Send for LibraryKey {}

impl LibraryKey {
    /// The key for `cipher` from the first bytes of `secret`; `None` for a cipher that the library
    /// has not.
    pub fn new(cipher: Cipher, secret: &[u8; SECRET_BYTES]) -> Option<Box<Self>> {
        // SAFETY: these calls take nothing and return pointers to the library's tables.
        let (algorithm, key_bytes, touched): (*const EVP_AEAD, usize, u16) = unsafe {
            match cipher {
                Cipher::ChaCha20Poly1305 => (EVP_aead_chacha20_poly1305(), 32, 64),
                Cipher::Aes128Gcm => (EVP_aead_aes_128_gcm(), 16, WHOLE),
                Cipher::Aes256Gcm => (EVP_aead_aes_256_gcm(), 32, WHOLE),
                Cipher::SimulatorTag => return None,
            }
        };
        // SAFETY: the context is a C structure for which all zeros is a value.
        let context = unsafe { core::mem::zeroed() };
        let mut key = Box::new(Self { context, touched });
        // SAFETY: the context is where it stays until it is dropped, `secret` has at least
        // `key_bytes`, and no engine is asked for.
        let done = unsafe {
            EVP_AEAD_CTX_zero(&raw mut key.context);
            EVP_AEAD_CTX_init(
                &raw mut key.context,
                algorithm,
                secret.as_ptr(),
                key_bytes,
                TAG_BYTES,
                ptr::null_mut(),
            )
        };
        (done == 1).then_some(key)
    }
}

impl Drop for LibraryKey {
    fn drop(&mut self) {
        // SAFETY: the context was made or zeroed in `new` and is used no more; wiping covers exactly
        // its bytes, and all zeros is a value of it.
        unsafe {
            EVP_AEAD_CTX_cleanup(&raw mut self.context);
            OPENSSL_cleanse((&raw mut self.context).cast(), size_of::<EVP_AEAD_CTX>());
        }
    }
}

impl PacketKey for LibraryKey {
    fn seal(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], buffer: &mut [u8]) {
        assert!(buffer.len() >= TAG_BYTES, "a packet to be sealed has room for its tag");
        let mut written = 0;
        let bytes = buffer.as_mut_ptr();
        // SAFETY: input and output are the same bytes, which the library permits; it writes the text
        // and the tag, together the length of `buffer`, which is the room that it is told.
        let done = unsafe {
            EVP_AEAD_CTX_seal(
                &raw const self.context,
                bytes,
                &raw mut written,
                buffer.len(),
                nonce.as_ptr(),
                NONCE_BYTES,
                bytes,
                buffer.len() - TAG_BYTES,
                associated.as_ptr(),
                associated.len(),
            )
        };
        if done != 1 || written != buffer.len() {
            // The library refuses only texts past 2^36 bytes. Were that wrong, nothing readable may
            // leave: a zeroed packet fails at the peer.
            buffer.fill(0);
        }
    }

    fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        buffer: &mut [u8],
    ) -> Result<usize, OpenError> {
        let mut written = 0;
        let bytes = buffer.as_mut_ptr();
        // SAFETY: input and output are the same bytes, which the library permits; it writes no more
        // than the length of `buffer`, which is the room that it is told.
        let done = unsafe {
            EVP_AEAD_CTX_open(
                &raw const self.context,
                bytes,
                &raw mut written,
                buffer.len(),
                nonce.as_ptr(),
                NONCE_BYTES,
                bytes,
                buffer.len(),
                associated.as_ptr(),
                associated.len(),
            )
        };
        if done == 1 && written <= buffer.len() { Ok(written) } else { Err(OpenError) }
    }

    fn prefetch(&self) {
        prefetch::bytes(ptr::from_ref(self).cast(), usize::from(self.touched));
    }
}
