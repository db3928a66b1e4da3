//! Which key reads, which key signs, and how blocks are encrypted.
//!
//! # Keys
//!
//! A core's [key](crate::Hypercore::key) identifies the core. Anyone who has the key can read the log and check each
//! block. The key is written as 64 hexadecimal digits or as an [id](crate::Hypercore::id) of 52 characters. Peers find
//! each other by the [discovery key](crate::Hypercore::discovery_key), a hash of the key, from which the key
//! cannot be computed.
//!
//! The [key pair](crate::KeyPair) signs the log. A new core generates one and stores it in the file `oplog`, which
//! only the file's owner can read. To store the key pair elsewhere, pass it each time the core is opened:
//!
//! ```
//! use hypercore::{Hypercore, KeyPair, Memory};
//!
//! let key_pair = KeyPair::from_seed(&[7; 32]);
//! let core = Hypercore::options().key_pair(key_pair.clone()).open_in(Memory::new())?;
//! assert_eq!(core.key(), key_pair.public_key());
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! Use a key pair for one log on one machine. Two machines that append independently sign
//! logs that contradict each other. Readers detect that, stop replicating the core and report
//! it ([`on_conflict`](crate::Hypercore::on_conflict)).
//!
//! # Several signers
//!
//! A [manifest](crate::Manifest) lists several signers and the quorum: how many of them must sign. Each signer
//! signs the append separately, and the partial signatures together are the signature of the append. The key of such
//! a core is the hash of its manifest. In a *compat core*, the default, the key is the public key of the only signer.
//!
//! ```
//! use hypercore::{Hypercore, KeyPair, Manifest, Memory, MultiSignature, SignOptions, Signer};
//!
//! let (alice, bob) = (KeyPair::from_seed(&[1; 32]), KeyPair::from_seed(&[2; 32]));
//! let signers = vec![Signer::new(alice.public_key()), Signer::new(bob.public_key())];
//! let core = Hypercore::options().manifest(Manifest::new(signers).with_quorum(2)).open_in(Memory::new())?;
//! let shares = vec![core.sign_append(["both agree"], &alice)?, core.sign_append(["both agree"], &bob)?];
//! let signature = MultiSignature::assemble(1, shares).encode(1);
//! core.append_with(["both agree"], SignOptions::new().signature(signature))?;
//! assert_eq!(core.len(), 1);
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! # Encryption of blocks
//!
//! A connection is always encrypted. With an [encryption key](crate::OpenOptions::encryption_key) the stored blocks
//! are encrypted as well, so that a peer without that key can store and serve blocks that it cannot read. The
//! encryption key is not stored: pass it each time the core is opened. Block sizes, the number of blocks and the
//! signatures stay visible to everyone who has the core's key.
//!
//! ```
//! use hypercore::{GetOptions, Hypercore};
//!
//! let core = Hypercore::options().encryption_key([9; 32]).open_in(hypercore::Memory::new())?;
//! core.append("secret")?;
//! assert_eq!(core.get(0)?, b"secret");
//! let stored = core.get_with(0, GetOptions::new().decrypt(false))?.unwrap();
//! assert_eq!(stored.len(), 6 + 8);
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! ## A wrong key, or none
//!
//! A read or an append fails with an error of kind [`Encryption`](crate::ErrorKind::Encryption) if the encryption key
//! is wrong or missing, or if one is given for a plain log. An append that fails in this way writes nothing. Opening
//! the core does not fail: `verify`, `clear`, `truncate`, `info` and replication need no encryption key, and
//! [`decrypt(false)`](crate::GetOptions::decrypt) reads blocks as they are stored.
//! [`check_encryption`](crate::Hypercore::check_encryption) makes the same check before the first read or append.
//!
//! ```
//! use hypercore::{Encrypted, ErrorKind, Hypercore, Memory};
//!
//! let memory = Memory::new();
//! let core = Hypercore::options().encryption_key([9; 32]).open_in(memory.clone())?;
//! core.append("secret")?;
//! core.close()?;
//!
//! let core = Hypercore::options().open_in(memory)?;
//! assert_eq!(core.is_encrypted(), Encrypted::Yes);
//! assert_eq!(core.get(0).unwrap_err().kind(), ErrorKind::Encryption);
//! assert_eq!(core.append("plain text").unwrap_err().kind(), ErrorKind::Encryption);
//! # Ok::<(), hypercore::Error>(())
//! ```
//!
//! The library checks an encryption key against a held block: the padding of each block holds the fork, blinded with
//! the key. An open without a key relies on a marker in the core's user data, `hypercore-blocking/encryption`. The
//! marker of an encrypted log is a fingerprint of the encryption key, which reveals nothing about a random key. The
//! marker of a plain log that was created by this library is one byte. The fingerprint is stored once the key is
//! known to be right: when a core with a key pair is created, with the first append, or when a block is read with
//! the key. JavaScript Hypercore keeps the marker and ignores it.
//!
//! Three cases cannot be detected:
//!
//! * A log that JavaScript wrote, or a copy that was made without the encryption key, if this library never opened
//!   it with its encryption key. [`is_encrypted`](crate::Hypercore::is_encrypted) returns
//!   [`Unknown`](crate::Encrypted::Unknown), and blocks are read as they are stored.
//! * A plain log that was created with [`Durability::None`](crate::Durability::None): its files have no marker. An
//!   encryption key for it is still refused while the core holds a block.
//! * An encryption key for a core that has no marker and holds no block. The first block that arrives decides.
//!
//! Do not use a password as the encryption key: anyone who has a stored block can try passwords against it. Derive
//! the key with a slow function.
//!
//! # Secrets in memory
//!
//! Secret keys are compared in constant time, and are wiped from memory when they are dropped. `Debug` and errors
//! never show them.
//!
//! # Keys on the command line
//!
//! Every user of the machine can see the arguments of a command. The `hypercore` command therefore takes the
//! encryption key from a file (`--encryption-key-file FILE`), from standard input (`--encryption-key-file -`) or
//! from the environment variable `HYPERCORE_ENCRYPTION_KEY`, and the seed of a new core from `--seed-file FILE`
//! or `--seed-file -`.
