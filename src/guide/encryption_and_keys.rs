//! Who can read, who can write, and what is secret.
//!
//! # Keys
//!
//! A core's [key](crate::Hypercore::key) names it and lets its holder read and check it. It is shown as 64 hexadecimal digits or as an
//! [id](crate::Hypercore::id) of 52 characters. Peers find each other by the [discovery key](crate::Hypercore::discovery_key), which does
//! not give the key away.
//!
//! The [key pair](crate::KeyPair) signs. A new core makes one and stores it in `oplog`, which only its owner can read. To keep it
//! elsewhere, give it on opening:
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
//! Use a key pair for one log in one place: two machines that append by themselves sign logs that contradict each other, which readers
//! notice and refuse ([`on_conflict`](crate::Hypercore::on_conflict)).
//!
//! # Several signers
//!
//! A [manifest](crate::Manifest) names several signers and how many of them it takes. Each signs for itself; the shares put together are
//! the signature of the append:
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
//! On the wire everything is encrypted. With an [encryption key](crate::OpenOptions::encryption_key) blocks are
//! encrypted as they are stored, so that peers can keep and pass on what they cannot read. The key is not stored:
//! give it at each opening. Sizes, the number of blocks and the signatures stay visible to everybody who has the
//! core's key.
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
//! Reading or appending with a wrong key, without the key, or with a key for a plain log is an error of kind
//! [`Encryption`](crate::ErrorKind::Encryption), and nothing is written. Opening is none: `verify`, `clear`,
//! `truncate`, `info` and replication need no key, and [`decrypt(false)`](crate::GetOptions::decrypt) reads blocks as
//! they are stored. [`check_encryption`](crate::Hypercore::check_encryption) tells before the first read or append.
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
//! A key is tested on the blocks that are here: each holds the fork in its padding, blinded with the key. An open
//! without a key goes by a marker in the core's user data, `hypercore-blocking/encryption`: a fingerprint of the
//! encryption key, which tells nothing of a random key, or for a plain log that was begun here one byte. The
//! fingerprint is stored once the key is known to be right: when a core with a key pair is made, with the first
//! append, or when a block is read with it. JavaScript Hypercore keeps the marker and ignores it.
//!
//! Three cases stay unknown:
//!
//! * A log of JavaScript, or a copy that was made without the key, that was never opened here with its key.
//!   [`is_encrypted`](crate::Hypercore::is_encrypted) says [`Unknown`](crate::Encrypted::Unknown), and blocks are read
//!   as they are stored.
//! * A plain log that was begun with [`Durability::None`](crate::Durability::None), whose files have no marker. A key
//!   for it is refused all the same while a block of it is here.
//! * A key of a core that has no marker and of which no block is here. The first block that comes tells.
//!
//! Do not use a password as the key: anybody who has a stored block can try passwords on it. Derive the key with a
//! slow function.
//!
//! # Secrets in memory
//!
//! Secret keys are wiped when they are dropped, never shown by `Debug` or in errors, and compared in constant time.
//!
//! # Keys on the command line
//!
//! A key among the arguments of a command is seen by every user of the machine. The `hypercore` command takes the
//! encryption key from a file (`--encryption-key-file FILE`), from standard input (`--encryption-key-file -`) or from
//! the variable `HYPERCORE_ENCRYPTION_KEY`, and the seed of a new core from `--seed-file FILE` or `--seed-file -`.
