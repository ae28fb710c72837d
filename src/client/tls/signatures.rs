//! Signatures for TLS: checking those of servers and their certificates, and making our own for client
//! certificates. RSA with 2048 to 8192 bits (PKCS#1 and PSS), ECDSA on P-256 and P-384, and Ed25519.

use std::{fmt, sync::Arc};

use ed25519_dalek::Signer as _;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use rsa::{
    Pkcs1v15Sign, Pss, RsaPrivateKey, RsaPublicKey,
    pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey, EncodeRsaPublicKey},
    pkcs8::DecodePrivateKey,
    traits::{PublicKeyParts, SignatureScheme as _},
};
use rustls::{
    Error, SignatureAlgorithm, SignatureScheme,
    crypto::{KeyProvider, WebPkiSupportedAlgorithms},
    pki_types::{
        AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
        alg_id,
    },
    sign::{Signer, SigningKey, public_key_to_spki},
};
use sha2::{Sha256, Sha384, Sha512};

use super::provider::{Sha, System};

/// Below this a modulus can be factored with effort that is within reach; rustls' own providers refuse it too.
const SMALLEST_RSA_BITS: u32 = 2048;

pub static RSA_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA256,
];

// Checking

#[derive(Clone, Copy, Debug)]
enum Key {
    P256,
    P384,
    Ed25519,
    RsaPkcs1,
    RsaPss,
}

/// One way to check a signature: the key's kind, the hash, and how a certificate names the pair.
#[derive(Debug)]
struct Verifier {
    key: Key,
    sha: Sha,
    name: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Verifier {
    fn verify_signature(&self, public: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.check(public, message, signature).ok_or(InvalidSignature)
    }
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        match self.key {
            Key::P256 => alg_id::ECDSA_P256,
            Key::P384 => alg_id::ECDSA_P384,
            Key::Ed25519 => alg_id::ED25519,
            Key::RsaPkcs1 | Key::RsaPss => alg_id::RSA_ENCRYPTION,
        }
    }
    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.name
    }
}

impl Verifier {
    fn check(&self, public: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
        if matches!(self.key, Key::Ed25519) {
            let key = ed25519_dalek::VerifyingKey::from_bytes(public.try_into().ok()?).ok()?;
            return key.verify_strict(message, &ed25519_dalek::Signature::from_slice(signature).ok()?).ok();
        }
        let hash = self.sha.digest(message);
        let hash = hash.as_ref();
        match self.key {
            Key::P256 => {
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(public).ok()?;
                key.verify_prehash(hash, &p256::ecdsa::Signature::from_der(signature).ok()?).ok()
            }
            Key::P384 => {
                let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(public).ok()?;
                key.verify_prehash(hash, &p384::ecdsa::Signature::from_der(signature).ok()?).ok()
            }
            Key::RsaPkcs1 => pkcs1(self.sha).verify(&rsa_key(public)?, hash, signature).ok(),
            Key::RsaPss => {
                let key = rsa_key(public)?;
                match self.sha {
                    Sha::S256 => Pss::<Sha256>::new().verify(&key, hash, signature).ok(),
                    Sha::S384 => Pss::<Sha384>::new().verify(&key, hash, signature).ok(),
                    Sha::S512 => Pss::<Sha512>::new().verify(&key, hash, signature).ok(),
                }
            }
            Key::Ed25519 => None,
        }
    }
}

fn rsa_key(der: &[u8]) -> Option<RsaPublicKey> {
    RsaPublicKey::from_pkcs1_der(der).ok().filter(|key| key.n().bits() >= SMALLEST_RSA_BITS)
}

fn pkcs1(sha: Sha) -> Pkcs1v15Sign {
    match sha {
        Sha::S256 => Pkcs1v15Sign::new::<Sha256>(),
        Sha::S384 => Pkcs1v15Sign::new::<Sha384>(),
        Sha::S512 => Pkcs1v15Sign::new::<Sha512>(),
    }
}

macro_rules! verifiers {
    ($($constant:ident: $key:ident $sha:ident $name:expr;)*) => {
        $(static $constant: &Verifier = &Verifier { key: Key::$key, sha: Sha::$sha, name: $name };)*
        static ALL: &[&dyn SignatureVerificationAlgorithm] = &[$($constant),*];
    };
}

verifiers! {
    P256_256: P256 S256 alg_id::ECDSA_SHA256;
    P256_384: P256 S384 alg_id::ECDSA_SHA384;
    P384_256: P384 S256 alg_id::ECDSA_SHA256;
    P384_384: P384 S384 alg_id::ECDSA_SHA384;
    P256_512: P256 S512 alg_id::ECDSA_SHA512;
    P384_512: P384 S512 alg_id::ECDSA_SHA512;
    ED25519: Ed25519 S512 alg_id::ED25519;
    PSS_256: RsaPss S256 alg_id::RSA_PSS_SHA256;
    PSS_384: RsaPss S384 alg_id::RSA_PSS_SHA384;
    PSS_512: RsaPss S512 alg_id::RSA_PSS_SHA512;
    PKCS1_256: RsaPkcs1 S256 alg_id::RSA_PKCS1_SHA256;
    PKCS1_384: RsaPkcs1 S384 alg_id::RSA_PKCS1_SHA384;
    PKCS1_512: RsaPkcs1 S512 alg_id::RSA_PKCS1_SHA512;
    // Some issuers leave the NULL parameters out, against RFC 4055 section 5; rustls' own providers bear it.
    BARE_256: RsaPkcs1 S256 bare(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]);
    BARE_384: RsaPkcs1 S384 bare(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]);
    BARE_512: RsaPkcs1 S512 bare(&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d]);
}

const fn bare(der: &'static [u8]) -> AlgorithmIdentifier {
    AlgorithmIdentifier::from_slice(der)
}

/// What certificates may be signed with, and what each TLS signature scheme means. TLS 1.3 fixes the curve to the
/// hash and takes the first of each list; TLS 1.2 does not.
pub static VERIFIERS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: ALL,
    mapping: &[
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[P384_384, P256_384]),
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[P256_256, P384_256]),
        (SignatureScheme::ED25519, &[ED25519]),
        (SignatureScheme::RSA_PSS_SHA512, &[PSS_512]),
        (SignatureScheme::RSA_PSS_SHA384, &[PSS_384]),
        (SignatureScheme::RSA_PSS_SHA256, &[PSS_256]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[PKCS1_512]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[PKCS1_384]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[PKCS1_256]),
    ],
};

// Signing

/// Reads private keys.
#[derive(Debug)]
pub struct Keys;

#[derive(Clone)]
enum Private {
    P256(Arc<p256::ecdsa::SigningKey>),
    P384(Arc<p384::ecdsa::SigningKey>),
    Ed25519(Arc<ed25519_dalek::SigningKey>),
    Rsa(Arc<RsaPrivateKey>),
}

/// A private key, and the scheme it was chosen to sign with.
#[derive(Clone)]
struct Signing {
    key: Private,
    scheme: SignatureScheme,
}

impl KeyProvider for Keys {
    fn load_private_key(&self, der: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let key = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaPrivateKey::from_pkcs1_der(der.secret_pkcs1_der()).ok().map(rsa_private),
            PrivateKeyDer::Sec1(der) => {
                let der = der.secret_sec1_der();
                let p256 = || p256::SecretKey::from_sec1_der(der).ok().map(p256_private);
                let p384 = || p384::SecretKey::from_sec1_der(der).ok().map(p384_private);
                p256().or_else(p384)
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let p256 = || p256::SecretKey::from_pkcs8_der(der).ok().map(p256_private);
                let p384 = || p384::SecretKey::from_pkcs8_der(der).ok().map(p384_private);
                let ed25519 = || {
                    let key = ed25519_dalek::SigningKey::from_pkcs8_der(der).ok()?;
                    Some(Private::Ed25519(Arc::new(key)))
                };
                let rsa = || RsaPrivateKey::from_pkcs8_der(der).ok().map(rsa_private);
                p256().or_else(p384).or_else(ed25519).or_else(rsa)
            }
            _ => None,
        };
        match key {
            Some(Private::Rsa(key)) if key.n().bits() < SMALLEST_RSA_BITS => {
                Err(Error::General(format!("the RSA key has {} bits, at least 2048 are needed", key.n().bits())))
            }
            Some(key) => Ok(Arc::new(Signing { key, scheme: SignatureScheme::Unknown(0) })),
            None => Err(Error::General("it is no RSA, ECDSA (P-256, P-384) or Ed25519 key".into())),
        }
    }
}

fn p256_private(key: p256::SecretKey) -> Private {
    Private::P256(Arc::new(key.into()))
}

fn p384_private(key: p384::SecretKey) -> Private {
    Private::P384(Arc::new(key.into()))
}

fn rsa_private(key: RsaPrivateKey) -> Private {
    Private::Rsa(Arc::new(key))
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", SigningKey::algorithm(self))
    }
}

impl SigningKey for Signing {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = match self.key {
            Private::P256(_) => &[SignatureScheme::ECDSA_NISTP256_SHA256][..],
            Private::P384(_) => &[SignatureScheme::ECDSA_NISTP384_SHA384],
            Private::Ed25519(_) => &[SignatureScheme::ED25519],
            Private::Rsa(_) => RSA_SCHEMES,
        };
        let scheme = *ours.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(Signing { key: self.key.clone(), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(match &self.key {
            Private::P256(key) => public_key_to_spki(&alg_id::ECDSA_P256, key.verifying_key().to_sec1_point(false)),
            Private::P384(key) => public_key_to_spki(&alg_id::ECDSA_P384, key.verifying_key().to_sec1_point(false)),
            Private::Ed25519(key) => public_key_to_spki(&alg_id::ED25519, key.verifying_key()),
            Private::Rsa(key) => public_key_to_spki(&alg_id::RSA_ENCRYPTION, key.as_public_key().to_pkcs1_der().ok()?),
        })
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.key {
            Private::P256(_) | Private::P384(_) => SignatureAlgorithm::ECDSA,
            Private::Ed25519(_) => SignatureAlgorithm::ED25519,
            Private::Rsa(_) => SignatureAlgorithm::RSA,
        }
    }
}

impl Signer for Signing {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.make(message).ok_or_else(|| Error::General("signing with the client's key failed".into()))
    }
    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl Signing {
    fn make(&self, message: &[u8]) -> Option<Vec<u8>> {
        let sha = match self.scheme {
            SignatureScheme::RSA_PKCS1_SHA512 | SignatureScheme::RSA_PSS_SHA512 => Sha::S512,
            SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PSS_SHA384
            | SignatureScheme::ECDSA_NISTP384_SHA384 => Sha::S384,
            _ => Sha::S256,
        };
        let hash = sha.digest(message);
        let hash = hash.as_ref();
        match &self.key {
            Private::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(hash).ok()?;
                Some(signature.to_der().as_bytes().to_vec())
            }
            Private::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign_prehash(hash).ok()?;
                Some(signature.to_der().as_bytes().to_vec())
            }
            Private::Ed25519(key) => Some(key.sign(message).to_bytes().to_vec()),
            // The generator also blinds the private operation, against timing attacks.
            Private::Rsa(key) => match (self.scheme, sha) {
                (SignatureScheme::RSA_PSS_SHA256, _) => Pss::<Sha256>::new().sign(Some(&mut System), key, hash),
                (SignatureScheme::RSA_PSS_SHA384, _) => Pss::<Sha384>::new().sign(Some(&mut System), key, hash),
                (SignatureScheme::RSA_PSS_SHA512, _) => Pss::<Sha512>::new().sign(Some(&mut System), key, hash),
                (_, sha) => pkcs1(sha).sign(Some(&mut System), key, hash),
            }
            .ok(),
        }
    }
}
