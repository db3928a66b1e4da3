//! Making a new core, also in place of one that is overwritten.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::core::encryption;
use crate::core::open_options::OpenOptions;
use crate::core::recovery::Recovered;
use crate::core::state::{Files, State, storage_path};
use crate::core::writer::Preparation;
use crate::crypto::keys::KeyPair;
use crate::manifest::{Manifest, Verifier};
use crate::merkle::Head;
use crate::oplog::{Header, Oplog, StoredKeyPair, TreeHeader};
use crate::storage::FileOptions;
use crate::storage::backend::Storage;
use crate::{Error, Result};

/// Writes the header of a new core to `oplog` and empties the other files. With `sync` it waits until they are
/// on the disk.
pub(crate) fn create(
    storage: &Arc<dyn Storage>,
    oplog: &mut Oplog,
    how: FileOptions,
    sync: bool,
    options: &OpenOptions,
) -> Result<(Header, Recovered)> {
    let (header, verifier) = new_core(options)?;
    oplog.flush(&header, sync)?;
    let mut files = Files::open(storage, how, oplog.file())?;
    // The header that was just written ended the old core, so no core needs these files.
    files.tree.file().clear()?;
    files.bits.file().clear()?;
    files.blocks.set_len(0)?;
    if sync {
        // These syncs come before new blocks overwrite the bytes of old ones.
        files.blocks.sync()?;
        files.tree.file().sync()?;
        files.bits.file().sync()?;
        storage.sync_dir().map_err(|e| Error::from_io(e, "sync", storage_path(storage)))?;
    }
    if options.overwrite {
        // This comes last: beside a header that cannot be read, the files would look as if they belonged
        // to that header.
        oplog.wipe_former(sync)?;
    }
    files.bits.forget(&[]);
    let state = State {
        head: Head::default(),
        verifier,
        contiguous: Some(0),
        user_data: header.user_data.clone(),
        reorgs: Vec::new(),
        snapshots: Vec::new(),
        repaired: Vec::new(),
        recovery: None,
        unannounced: None,
        stored_contiguous: None,
        files: Some(files),
    };
    Ok((header, Recovered { state, preparation: Preparation::Due { flush: false, holes: Vec::new() } }))
}

/// The header of a new core, by the rules of JavaScript Hypercore.
fn new_core(options: &OpenOptions) -> Result<(Header, Verifier)> {
    let compat = options.compat == Some(true) || (options.compat != Some(false) && options.manifest.is_none());
    let key_pair = match (&options.key_pair, options.key) {
        (Some(pair), _) => Some(pair.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(KeyPair::generate()?),
    };
    if let (true, Some(key), Some(pair)) = (compat, options.key, &key_pair) {
        if pair.public_key() != key {
            return Err(Error::bad_argument(format!(
                "the key pair {} is not that of the core {key}; give the manifest that names it, or `compat(false)`",
                pair.public_key()
            )));
        }
    }
    let public_key = key_pair.as_ref().map(KeyPair::public_key);
    let by_default = options.compat == Some(true) || options.key.is_none() || public_key == options.key;
    let manifest = match (&options.manifest, options.key.or(public_key)) {
        (Some(manifest), _) => Some(manifest.clone()),
        (None, Some(signer)) if by_default => Some(Manifest::single(signer)),
        _ => None,
    };
    let key = match (options.key, &manifest) {
        (Some(key), _) => key,
        (None, Some(manifest)) => match manifest.signers.as_slice() {
            [signer] if compat => signer.public_key,
            _ if compat => {
                return Err(Error::bad_argument(
                    "a compat core has exactly one signer: give a manifest with one, or `compat(false)`",
                ));
            }
            _ => manifest.key(),
        },
        (None, None) => unreachable!("without a key there is a key pair, and the manifest is made from it"),
    };
    let verifier = Verifier::new(key, manifest.clone(), compat)?;
    let header = Header {
        key,
        manifest,
        key_pair: key_pair.as_ref().map(|pair| {
            let mut secret_key = Box::new(Zeroizing::new([0; 64]));
            secret_key.copy_from_slice(pair.secret_key());
            StoredKeyPair { public_key: pair.public_key(), secret_key: Some(secret_key) }
        }),
        user_data: encryption::user_data_of_new_core(options.encryption_key.as_deref(), key, key_pair.as_ref()),
        tree: TreeHeader::default(),
        reorgs: Vec::new(),
        contiguous_length: 0,
    };
    Ok((header, verifier))
}
