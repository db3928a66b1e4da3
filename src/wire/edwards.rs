//! Diffie-Hellman on Edwards points, as in npm `noise-curve-ed`.
//!
//! The scalar is the clamped half of SHA-512(seed). The point is any public key that libsodium's
//! `crypto_scalarmult_ed25519_noclamp` accepts: in canonical form, in the prime-order subgroup, not the neutral
//! element. Exactly the points that libsodium refuses must be refused: a point of small order would make the
//! shared secret a constant.

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use zeroize::Zeroizing;

use crate::crypto::keys::KeyPair;
use crate::{Error, Result};

/// The shared point of `pair` and the owner of `public_key`, in constant time with respect to the secret.
pub fn shared_point(pair: &KeyPair, public_key: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
    let point = CompressedEdwardsY(*public_key)
        .decompress()
        .filter(|p| p.compress().0 == *public_key && !p.is_small_order() && p.is_torsion_free())
        .ok_or_else(|| Error::protocol("the peer's key is not a point of the curve's main subgroup"))?;
    // The clamped scalar is reduced modulo the order of the point, so the product is the same.
    let scalar = Zeroizing::new(Scalar::from_bytes_mod_order(*pair.scalar()));
    let product = Zeroizing::new(point * *scalar);
    if product.is_identity() {
        return Err(Error::protocol("the peer's key yields no shared secret"));
    }
    Ok(Zeroizing::new(product.compress().0))
}
