//! Fernet: how channels_redis encrypts (<https://github.com/fernet/spec/blob/master/Spec.md>, version 0x80).

use std::fmt;

use aws_lc_rs::cipher::{
    AES_128, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;

const VERSION: u8 = 0x80;
const TIME: std::ops::Range<usize> = 1..9;
const IV: std::ops::Range<usize> = 9..25;
const MAC_BYTES: usize = 32;

/// Keys, of which the first encrypts and any decrypts. Never shown.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    signing: [u8; 16],
    encryption: [u8; 16],
}

/// A token that is not of these keys, or is too old. It is not told which: that would help who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was not encrypted with one of the keys, or too long ago")]
pub struct FernetError;

impl Keys {
    /// The keys as `symmetric_encryption_keys` has them: any texts.
    pub fn new<T: AsRef<str>>(texts: &[T]) -> Self {
        Self(texts.iter().map(|text| Key::of(text.as_ref())).collect())
    }

    /// Whether there is none, and nothing is encrypted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Encrypts with the first key.
    ///
    /// # Errors
    /// When there is no key, or no randomness.
    pub fn encrypt(&self, plain: &[u8], now_secs: u64) -> Result<Vec<u8>, FernetError> {
        let mut iv = [0; 16];
        rand::fill(&mut iv).map_err(|_| FernetError)?;
        self.0.first().ok_or(FernetError)?.encrypt(plain, now_secs, iv)
    }

    /// Decrypts with the key that fits. With `max_age_secs`, only what is no older, and from no more than a minute ahead.
    ///
    /// # Errors
    /// When none fits, or it is too old.
    pub fn decrypt(&self, token: &[u8], now_secs: u64, max_age_secs: Option<u64>) -> Result<Vec<u8>, FernetError> {
        let token = URL_SAFE.decode(token).map_err(|_| FernetError)?;
        if token.len() < IV.end + 16 + MAC_BYTES || token[0] != VERSION {
            return Err(FernetError);
        }
        let (signed, mac) = token.split_at(token.len() - MAC_BYTES);
        let key = self.0.iter().find(|key| key.has_signed(signed, mac)).ok_or(FernetError)?;
        let at = signed[TIME].iter().fold(0, |at, byte| at << 8 | u64::from(*byte));
        if max_age_secs.is_some_and(|max| at.saturating_add(max) < now_secs || at > now_secs.saturating_add(60)) {
            return Err(FernetError);
        }
        key.decrypt(signed)
    }
}

impl Key {
    fn of(text: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let (signing, encryption) = hash.as_ref().split_at(16);
        let half = |bytes: &[u8]| bytes.try_into().expect("half of a SHA-256 is 16 bytes");
        Self { signing: half(signing), encryption: half(encryption) }
    }

    fn encrypt(&self, plain: &[u8], now_secs: u64, iv: [u8; 16]) -> Result<Vec<u8>, FernetError> {
        let key = UnboundCipherKey::new(&AES_128, &self.encryption).map_err(|_| FernetError)?;
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(key).map_err(|_| FernetError)?;
        let mut cipher = plain.to_vec();
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        key.less_safe_encrypt(&mut cipher, context).map_err(|_| FernetError)?;
        let mut token = vec![VERSION];
        token.extend_from_slice(&now_secs.to_be_bytes());
        token.extend_from_slice(&iv);
        token.extend_from_slice(&cipher);
        let mac = hmac::sign(&self.mac_key(), &token);
        token.extend_from_slice(mac.as_ref());
        Ok(URL_SAFE.encode(token).into_bytes())
    }

    fn has_signed(&self, signed: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.mac_key(), signed, mac).is_ok()
    }

    fn decrypt(&self, signed: &[u8]) -> Result<Vec<u8>, FernetError> {
        let key = UnboundCipherKey::new(&AES_128, &self.encryption).map_err(|_| FernetError)?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| FernetError)?;
        let iv: [u8; 16] = signed[IV].try_into().map_err(|_| FernetError)?;
        let mut cipher = signed[IV.end..].to_vec();
        let plain =
            key.decrypt(&mut cipher, DecryptionContext::Iv128(FixedLength::from(iv))).map_err(|_| FernetError)?;
        Ok(plain.to_vec())
    }

    fn mac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.signing)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTHON: &str = "gAAAAABrAvx5zJk6BmbtFX6QCHZSgPX913OwmrDxMG1KQDb6uhOobqZUPWj4YRAuFRZ8bi74Hm_KlRw-SRka_FTZIdG89_CmKdTyvmlOYITECdtIE9efP5oPLyjNy88Kpnkq9AZ6mV7K";
    const AT: u64 = 1_795_357_817;

    #[test]
    fn reads_what_python_encrypted() {
        let keys = Keys::new(&["s3cret"]);
        let plain = keys.decrypt(PYTHON.as_bytes(), AT + 70, Some(70)).expect("it is ours");
        assert!(plain.starts_with(b"\x82\xa4type\xadexecute_query") && plain.len() == 33);
        assert_eq!(keys.decrypt(PYTHON.as_bytes(), AT + 71, Some(70)), Err(FernetError), "too old");
        assert!(keys.decrypt(PYTHON.as_bytes(), AT + 1_000_000, None).is_ok(), "no age is asked for");
        assert_eq!(Keys::new(&["other"]).decrypt(PYTHON.as_bytes(), AT, None), Err(FernetError));
        assert!(Keys::new(&["new", "s3cret"]).decrypt(PYTHON.as_bytes(), AT, None).is_ok(), "any key decrypts");
    }

    #[test]
    fn is_the_example_of_the_specification() {
        let key = URL_SAFE.decode("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=").expect("base64");
        let half = |range: std::ops::Range<usize>| key[range].try_into().expect("16 bytes");
        let key = Key { signing: half(0..16), encryption: half(16..32) };
        let iv = std::array::from_fn(|at| at as u8);
        let token = key.encrypt(b"hello", 499_162_800, iv).expect("it can be encrypted");
        let expected =
            "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";
        assert_eq!(token, expected.as_bytes());
    }

    #[test]
    fn a_changed_token_is_refused() {
        let keys = Keys::new(&["s3cret"]);
        let token =
            keys.encrypt(b"hello", 7).and_then(|token| keys.decrypt(&token, 7, Some(1)).map(|plain| (token, plain)));
        let (token, plain) = token.expect("it is ours");
        assert_eq!(plain, b"hello");
        for at in 0..token.len() {
            let mut other = token.clone();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let read = keys.decrypt(&other, 7, Some(1));
            // The last characters of base64 may have bits that mean nothing.
            assert!(read.is_err() || read.as_deref() == Ok(b"hello") && at + 4 > token.len(), "{at}");
        }
        assert_eq!(keys.decrypt(b"", 7, None), Err(FernetError));
        assert_eq!(format!("{keys:?}"), "Keys(1)");
    }
}
