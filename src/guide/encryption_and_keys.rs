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
//! On the wire everything is encrypted. With an [encryption key](crate::OpenOptions::encryption_key) blocks are encrypted as they are stored,
//! so that peers can keep and pass on what they cannot read. It is not stored: give it at each opening. Sizes, the number of blocks and the
//! signatures stay visible to who has the core's key.
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
//! # Secrets in memory
//!
//! Secret keys are wiped when they are dropped, never shown by `Debug` or in errors, and compared in constant time.
