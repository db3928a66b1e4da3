//! Diffie-Hellman on Edwards points, as npm `noise-curve-ed` does it.
//!
//! The scalar is the clamped half of SHA-512(seed), the point any public key that libsodium's
//! `crypto_scalarmult_ed25519_noclamp` takes: in canonical form, of the prime-order subgroup, not the neutral element.
//! Refusing the same points as libsodium matters: a point of small order would make the shared secret a constant.

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use zeroize::Zeroizing;

use crate::crypto::keys::KeyPair;
use crate::{Error, Result};

/// The point that `pair` and the owner of `public_key` share; constant time in the secret.
pub fn shared_point(pair: &KeyPair, public_key: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
    let point = CompressedEdwardsY(*public_key)
        .decompress()
        .filter(|p| p.compress().0 == *public_key && !p.is_small_order() && p.is_torsion_free())
        .ok_or_else(|| Error::protocol("the peer's key is not a point of the curve's main subgroup"))?;
    // The order of the point is the modulus that the clamped scalar is reduced by, so the product is the same.
    let scalar = Zeroizing::new(Scalar::from_bytes_mod_order(*pair.scalar()));
    let product = Zeroizing::new(point * *scalar);
    if product.is_identity() {
        return Err(Error::protocol("the peer's key yields no shared secret"));
    }
    Ok(Zeroizing::new(product.compress().0))
}
