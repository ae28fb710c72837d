//! The cryptography under rustls, in pure Rust, so that both targets build with nothing but rustc: the RustCrypto
//! crates put behind rustls' `CryptoProvider`. They choose hardware instructions at run time and fall back to
//! constant-time software, so an old processor is slower but works. Here are randomness, hashes, ciphers and key
//! exchange; signatures are `signatures.rs`, certificates and connections `tls.rs`.
//!
//! Suites and groups are those that rustls' own providers offer; TLS 1.2 only with ECDHE and AEAD.

use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;
use hmac::{Hmac, Mac};
use p256::elliptic_curve::sec1::ToSec1Point;
use rsa::rand_core::{TryCryptoRng, TryRng};
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::{
    CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, NamedGroup, PeerMisbehaved,
    ProtocolVersion, SignatureScheme, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite,
    crypto::{
        ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyExchangeAlgorithm, SecureRandom, SharedSecret,
        SupportedKxGroup,
        cipher::{
            AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter, MessageEncrypter,
            NONCE_LEN, Nonce, OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls12AeadAlgorithm,
            Tls13AeadAlgorithm, UnsupportedOperationError, make_tls12_aad, make_tls13_aad,
        },
        hash, hmac as tls_hmac,
        tls12::PrfUsingHmac,
        tls13::HkdfUsingHmac,
    },
};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::signatures;

/// Everything rustls needs to speak TLS 1.2 and 1.3.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        kx_groups: vec![&Group::X25519, &Group::P256, &Group::P384],
        signature_verification_algorithms: signatures::VERIFIERS,
        secure_random: &System,
        key_provider: &signatures::Keys,
    }
}

// Randomness

/// The kernel's generator, through the `getrandom` system call.
#[derive(Debug)]
pub struct System;

impl SecureRandom for System {
    fn fill(&self, mut buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        while !buffer.is_empty() {
            match getrandom(&mut *buffer, GetRandomFlags::empty()) {
                Ok(count) => buffer = &mut buffer[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(GetRandomFailed),
            }
        }
        Ok(())
    }
}

impl TryRng for System {
    type Error = rustix::io::Errno;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }
    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error> {
        self.fill(buffer).map_err(|_| rustix::io::Errno::IO)
    }
}

impl TryCryptoRng for System {}

// Hashes

/// The hash functions that TLS and certificates use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sha {
    S256,
    S384,
    S512,
}

impl Sha {
    pub fn digest(self, data: &[u8]) -> hash::Output {
        match self {
            Sha::S256 => hash::Output::new(&Sha256::digest(data)),
            Sha::S384 => hash::Output::new(&Sha384::digest(data)),
            Sha::S512 => hash::Output::new(&Sha512::digest(data)),
        }
    }

    const fn length(self) -> usize {
        match self {
            Sha::S256 => 32,
            Sha::S384 => 48,
            Sha::S512 => 64,
        }
    }
}

/// A hash under way. SHA-512 occurs in signatures only, where the whole message is at hand.
#[derive(Clone)]
enum Running {
    S256(Sha256),
    S384(Sha384),
}

impl hash::Hash for Sha {
    fn start(&self) -> Box<dyn hash::Context> {
        Box::new(match self {
            Sha::S256 => Running::S256(Sha256::new()),
            Sha::S384 | Sha::S512 => Running::S384(Sha384::new()),
        })
    }
    fn hash(&self, data: &[u8]) -> hash::Output {
        self.digest(data)
    }
    fn output_len(&self) -> usize {
        self.length()
    }
    fn algorithm(&self) -> hash::HashAlgorithm {
        match self {
            Sha::S256 => hash::HashAlgorithm::SHA256,
            Sha::S384 => hash::HashAlgorithm::SHA384,
            Sha::S512 => hash::HashAlgorithm::SHA512,
        }
    }
}

impl hash::Context for Running {
    fn fork_finish(&self) -> hash::Output {
        Box::new(self.clone()).finish()
    }
    fn fork(&self) -> Box<dyn hash::Context> {
        Box::new(self.clone())
    }
    fn finish(self: Box<Self>) -> hash::Output {
        match *self {
            Running::S256(context) => hash::Output::new(&context.finalize()),
            Running::S384(context) => hash::Output::new(&context.finalize()),
        }
    }
    fn update(&mut self, data: &[u8]) {
        match self {
            Running::S256(context) => Digest::update(context, data),
            Running::S384(context) => Digest::update(context, data),
        }
    }
}

// HMAC, from which rustls builds HKDF and the TLS 1.2 PRF

enum MacKey {
    S256(Hmac<Sha256>),
    S384(Hmac<Sha384>),
}

impl tls_hmac::Hmac for Sha {
    fn with_key(&self, key: &[u8]) -> Box<dyn tls_hmac::Key> {
        // RFC 2104 section 2: a key of any length is admitted.
        const ANY: &str = "HMAC takes a key of any length";
        Box::new(match self {
            Sha::S256 => MacKey::S256(Hmac::new_from_slice(key).expect(ANY)),
            Sha::S384 | Sha::S512 => MacKey::S384(Hmac::new_from_slice(key).expect(ANY)),
        })
    }
    fn hash_output_len(&self) -> usize {
        self.length()
    }
}

fn authenticate<M: Mac + Clone>(key: &M, first: &[u8], middle: &[&[u8]], last: &[u8]) -> tls_hmac::Tag {
    let mut mac = key.clone();
    mac.update(first);
    for part in middle {
        mac.update(part);
    }
    mac.update(last);
    tls_hmac::Tag::new(&mac.finalize().into_bytes())
}

impl tls_hmac::Key for MacKey {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> tls_hmac::Tag {
        match self {
            MacKey::S256(key) => authenticate(key, first, middle, last),
            MacKey::S384(key) => authenticate(key, first, middle, last),
        }
    }
    fn tag_len(&self) -> usize {
        match self {
            MacKey::S256(_) => 32,
            MacKey::S384(_) => 48,
        }
    }
}

// Ciphers

/// The authenticated ciphers; all have a nonce of 12 and a tag of 16 bytes.
#[derive(Clone, Copy)]
enum Aead {
    Aes128,
    Aes256,
    ChaCha,
}

const TAG: usize = 16;
/// TLS 1.2 sends this much of an AES-GCM nonce with each record (RFC 5288 section 3).
const EXPLICIT: usize = 8;
/// The most that one record may hold (RFC 5246 section 6.2.1).
const LARGEST_RECORD: usize = 1 << 14;

enum Cipher {
    Aes128(Box<Aes128Gcm>),
    Aes256(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Aead {
    const fn key_length(self) -> usize {
        match self {
            Aead::Aes128 => 16,
            Aead::Aes256 | Aead::ChaCha => 32,
        }
    }

    fn cipher(self, key: &AeadKey) -> Cipher {
        const LENGTH: &str = "rustls hands out keys of the length that key_len() names";
        let key = key.as_ref();
        match self {
            Aead::Aes128 => Cipher::Aes128(Box::new(Aes128Gcm::new_from_slice(key).expect(LENGTH))),
            Aead::Aes256 => Cipher::Aes256(Box::new(Aes256Gcm::new_from_slice(key).expect(LENGTH))),
            Aead::ChaCha => Cipher::ChaCha(Box::new(ChaCha20Poly1305::new_from_slice(key).expect(LENGTH))),
        }
    }
}

impl Cipher {
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> Result<[u8; TAG], Error> {
        let nonce = &nonce.into();
        match self {
            Cipher::Aes128(cipher) => cipher.encrypt_inout_detached(nonce, aad, text.into()),
            Cipher::Aes256(cipher) => cipher.encrypt_inout_detached(nonce, aad, text.into()),
            Cipher::ChaCha(cipher) => cipher.encrypt_inout_detached(nonce, aad, text.into()),
        }
        .map(Into::into)
        .map_err(|_| Error::EncryptError)
    }

    /// Decrypts what stands before the tag at the end of `sealed`, and returns its length.
    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], sealed: &mut [u8]) -> Result<usize, Error> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG>().ok_or(Error::DecryptError)?;
        let (nonce, tag) = (&nonce.into(), &(*tag).into());
        match self {
            Cipher::Aes128(cipher) => cipher.decrypt_inout_detached(nonce, aad, text.into(), tag),
            Cipher::Aes256(cipher) => cipher.decrypt_inout_detached(nonce, aad, text.into(), tag),
            Cipher::ChaCha(cipher) => cipher.decrypt_inout_detached(nonce, aad, text.into(), tag),
        }
        .map_err(|_| Error::DecryptError)?;
        Ok(text.len())
    }
}

/// One direction of a TLS 1.3 connection.
struct Tls13(Cipher, Iv);

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Tls13(self.cipher(&key), iv))
    }
    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Tls13(self.cipher(&key), iv))
    }
    fn key_len(&self) -> usize {
        self.key_length()
    }
    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError) // only for handing a connection to the kernel
    }
}

impl MessageEncrypter for Tls13 {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        let total = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(total);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let tag = self.0.seal(Nonce::new(&self.1, seq).0, &make_tls13_aad(total), payload.as_mut())?;
        payload.extend_from_slice(&tag);
        // RFC 8446 section 5.1: every protected record says TLS 1.2 and application data.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }
    fn encrypted_payload_len(&self, length: usize) -> usize {
        length + 1 + TAG
    }
}

impl MessageDecrypter for Tls13 {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let aad = make_tls13_aad(message.payload.len());
        let length = self.0.open(Nonce::new(&self.1, seq).0, &aad, &mut message.payload)?;
        message.payload.truncate(length);
        message.into_tls13_unpadded_message()
    }
}

/// One direction of a TLS 1.2 connection. AES-GCM sends eight bytes of its nonce (RFC 5288), ChaCha20-Poly1305
/// derives all of it from the sequence number (RFC 7905).
struct Tls12 {
    cipher: Cipher,
    iv: Iv,
    /// The four bytes of an AES-GCM nonce that are not sent.
    salt: [u8; NONCE_LEN - EXPLICIT],
}

impl Tls12 {
    fn new(aead: Aead, key: &AeadKey, fixed: &[u8], explicit: &[u8]) -> Tls12 {
        let mut iv = [0; NONCE_LEN];
        // Both lengths come from `key_block_shape`; what is missing (no explicit part is known for reading) is 0.
        for (to, from) in iv.iter_mut().zip(fixed.iter().chain(explicit)) {
            *to = *from;
        }
        let [a, b, c, d, ..] = iv;
        Tls12 { cipher: aead.cipher(key), iv: Iv::new(iv), salt: [a, b, c, d] }
    }

    fn explicit(&self) -> usize {
        if matches!(self.cipher, Cipher::ChaCha(_)) { 0 } else { EXPLICIT }
    }
}

impl Tls12AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Tls12::new(*self, &key, iv, extra))
    }
    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        Box::new(Tls12::new(*self, &key, iv, &[]))
    }
    fn key_block_shape(&self) -> KeyBlockShape {
        let (fixed_iv_len, explicit_nonce_len) = match self {
            Aead::ChaCha => (NONCE_LEN, 0),
            Aead::Aes128 | Aead::Aes256 => (NONCE_LEN - EXPLICIT, EXPLICIT),
        };
        KeyBlockShape { enc_key_len: self.key_length(), fixed_iv_len, explicit_nonce_len }
    }
    fn extract_keys(
        &self,
        _: AeadKey,
        _: &[u8],
        _: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError) // only for handing a connection to the kernel
    }
}

impl MessageEncrypter for Tls12 {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        let length = message.payload.len();
        let mut payload = PrefixedPayload::with_capacity(self.encrypted_payload_len(length));
        // Never repeats for one key: it is a fixed value with the sequence number XORed in.
        let nonce = Nonce::new(&self.iv, seq).0;
        let explicit = self.explicit();
        payload.extend_from_slice(&nonce[NONCE_LEN - explicit..]);
        payload.extend_from_chunks(&message.payload);
        let aad = make_tls12_aad(seq, message.typ, message.version, length);
        let tag = self.cipher.seal(nonce, &aad, &mut payload.as_mut()[explicit..])?;
        payload.extend_from_slice(&tag);
        Ok(OutboundOpaqueMessage::new(message.typ, message.version, payload))
    }
    fn encrypted_payload_len(&self, length: usize) -> usize {
        length + self.explicit() + TAG
    }
}

impl MessageDecrypter for Tls12 {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let explicit = self.explicit();
        let length = message.payload.len().checked_sub(explicit + TAG).ok_or(Error::DecryptError)?;
        let mut nonce = Nonce::new(&self.iv, seq).0;
        if explicit > 0 {
            nonce[..NONCE_LEN - EXPLICIT].copy_from_slice(&self.salt);
            nonce[NONCE_LEN - EXPLICIT..].copy_from_slice(&message.payload[..EXPLICIT]);
        }
        let aad = make_tls12_aad(seq, message.typ, message.version, length);
        self.cipher.open(nonce, &aad, &mut message.payload[explicit..])?;
        if length > LARGEST_RECORD {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(message.into_plain_message_range(explicit..explicit + length))
    }
}

// Suites

/// After this many records AES-GCM must not be used with the same key: the figure of rustls' own providers, from
/// draft-irtf-cfrg-aead-limits. ChaCha20-Poly1305 has no limit in reach.
const GCM_RECORDS: u64 = 1 << 24;

const fn common(suite: CipherSuite, hash: &'static Sha, aead: Aead) -> CipherSuiteCommon {
    let confidentiality_limit = if matches!(aead, Aead::ChaCha) { u64::MAX } else { GCM_RECORDS };
    CipherSuiteCommon { suite, hash_provider: hash, confidentiality_limit }
}

macro_rules! suites {
    (tls13 [$($name13:ident $sha13:ident $aead13:ident,)*] tls12 [$($name12:ident $schemes:ident $sha12:ident $aead12:ident,)*]) => {
        static SUITES: &[SupportedCipherSuite] = &[
            $(SupportedCipherSuite::Tls13(&Tls13CipherSuite {
                common: common(CipherSuite::$name13, &Sha::$sha13, Aead::$aead13),
                hkdf_provider: &HkdfUsingHmac(&Sha::$sha13),
                aead_alg: &Aead::$aead13,
                quic: None,
            }),)*
            $(SupportedCipherSuite::Tls12(&Tls12CipherSuite {
                common: common(CipherSuite::$name12, &Sha::$sha12, Aead::$aead12),
                kx: KeyExchangeAlgorithm::ECDHE,
                sign: $schemes,
                aead_alg: &Aead::$aead12,
                prf_provider: &PrfUsingHmac(&Sha::$sha12),
            }),)*
        ];
    };
}

suites! {
    tls13 [
    TLS13_AES_256_GCM_SHA384 S384 Aes256,
    TLS13_AES_128_GCM_SHA256 S256 Aes128,
    TLS13_CHACHA20_POLY1305_SHA256 S256 ChaCha,
    ] tls12 [
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 ECDSA S384 Aes256,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 ECDSA S256 Aes128,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 ECDSA S256 ChaCha,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 RSA S384 Aes256,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 RSA S256 Aes128,
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 RSA S256 ChaCha,
    ]
}

/// What may sign the key exchange in a TLS 1.2 suite named ECDSA (RFC 8422 counts Ed25519 among them).
static ECDSA: &[SignatureScheme] =
    &[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ECDSA_NISTP256_SHA256];
static RSA: &[SignatureScheme] = signatures::RSA_SCHEMES;

// Key exchange

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    X25519,
    P256,
    P384,
}

enum Secret {
    X25519(x25519_dalek::StaticSecret),
    P256(p256::SecretKey),
    P384(p384::SecretKey),
}

struct Exchange {
    secret: Secret,
    public: Vec<u8>,
}

/// Draws bytes until they are a scalar of the curve; that fails once in 2^32 times for P-256, else far less often.
fn draw<const N: usize, K>(accept: impl Fn(&[u8; N]) -> Option<K>) -> Result<K, Error> {
    let mut bytes = zeroize::Zeroizing::new([0; N]);
    loop {
        System.fill(&mut *bytes)?;
        if let Some(key) = accept(&bytes) {
            return Ok(key);
        }
    }
}

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let (secret, public) = match self {
            Group::X25519 => {
                let secret = draw(|bytes: &[u8; 32]| Some(x25519_dalek::StaticSecret::from(*bytes)))?;
                let public = x25519_dalek::PublicKey::from(&secret).as_bytes().to_vec();
                (Secret::X25519(secret), public)
            }
            Group::P256 => {
                let secret = draw(|bytes: &[u8; 32]| p256::SecretKey::from_slice(bytes).ok())?;
                let public = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
                (Secret::P256(secret), public)
            }
            Group::P384 => {
                let secret = draw(|bytes: &[u8; 48]| p384::SecretKey::from_slice(bytes).ok())?;
                let public = secret.public_key().to_sec1_point(false).as_bytes().to_vec();
                (Secret::P384(secret), public)
            }
        };
        Ok(Box::new(Exchange { secret, public }))
    }
    fn name(&self) -> NamedGroup {
        match self {
            Group::X25519 => NamedGroup::X25519,
            Group::P256 => NamedGroup::secp256r1,
            Group::P384 => NamedGroup::secp384r1,
        }
    }
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let wrong = || Error::from(PeerMisbehaved::InvalidKeyShare);
        // RFC 8446 section 4.2.8.2: points are sent uncompressed, nothing else.
        let uncompressed = peer.first() == Some(&4);
        Ok(match self.secret {
            Secret::X25519(secret) => {
                let peer: [u8; 32] = peer.try_into().map_err(|_| wrong())?;
                let shared = secret.diffie_hellman(&peer.into());
                // RFC 8446 section 7.4.2: an all-zero result must end the connection.
                if !shared.was_contributory() {
                    return Err(wrong());
                }
                SharedSecret::from(&shared.as_bytes()[..])
            }
            Secret::P256(secret) => {
                let peer = p256::PublicKey::from_sec1_bytes(peer).ok().filter(|_| uncompressed).ok_or_else(wrong)?;
                SharedSecret::from(&secret.diffie_hellman(&peer).raw_secret_bytes()[..])
            }
            Secret::P384(secret) => {
                let peer = p384::PublicKey::from_sec1_bytes(peer).ok().filter(|_| uncompressed).ok_or_else(wrong)?;
                SharedSecret::from(&secret.diffie_hellman(&peer).raw_secret_bytes()[..])
            }
        })
    }
    fn pub_key(&self) -> &[u8] {
        &self.public
    }
    fn group(&self) -> NamedGroup {
        match self.secret {
            Secret::X25519(_) => NamedGroup::X25519,
            Secret::P256(_) => NamedGroup::secp256r1,
            Secret::P384(_) => NamedGroup::secp384r1,
        }
    }
}
