//! Signing local changes, and storing the manifest that says which signatures are valid.

use crate::Result;
use crate::core::change::Change;
use crate::core::session::Session;
use crate::core::state::State;
use crate::crypto::keys::{Key, KeyPair};
use crate::manifest::{Manifest, SignableTree, Verifier};

impl Session {
    /// See [`crate::Hypercore::set_manifest`].
    pub(crate) fn set_manifest(&self, manifest: Manifest) -> Result<()> {
        self.check_open()?;
        let shared = &*self.shared;
        let mut writer = shared.writer()?;
        let verifier = {
            let state = shared.state.read();
            if state.verifier.manifest().is_some() {
                return Ok(());
            }
            state.verifier.with_manifest(manifest)?
        };
        let committed = shared.commit(&mut writer, &[], vec![Change { verifier: Some(verifier), ..Change::default() }]);
        drop(writer);
        shared.deliver();
        committed
    }
}

/// Returns the verifier to sign with, and the same verifier again if its manifest has to be stored: a core that was
/// opened by its public key alone learns its manifest when the key pair of that key signs.
pub(crate) fn signing_verifier(
    state: &State,
    key: Key,
    key_pair: Option<&KeyPair>,
) -> Result<(Verifier, Option<Verifier>)> {
    let known = state.verifier.manifest().is_some();
    match key_pair {
        Some(key_pair) if !known && key_pair.public_key() == key => {
            let new_verifier = state.verifier.with_manifest(Manifest::single(key))?;
            Ok((new_verifier.clone(), Some(new_verifier)))
        }
        _ => Ok((state.verifier.clone(), None)),
    }
}

/// Signs `tree` with `key_pair`. A tree that is not longer than the prologue is valid without a signature, but only
/// with the prologue's blocks.
pub(crate) fn sign_or_prologue(verifier: &Verifier, tree: SignableTree<'_>, key_pair: &KeyPair) -> Result<Vec<u8>> {
    let signed = verifier.sign(tree, key_pair);
    if tree.fork != 0 || verifier.prologue().is_none_or(|prologue| tree.roots.length() > prologue.length) {
        return signed;
    }
    verifier.check(tree, &[])?;
    Ok(signed.unwrap_or_default())
}
