//! Secrets are not printed, and a dropped owner leaves no copy of its key in memory.

use std::fmt::Debug;

use hypercore::lowlevel::crypto::block_cipher::BlockCipher;
use hypercore::lowlevel::wire::noise::{Initiator, Responder, Role};
use hypercore::lowlevel::wire::noise_stream::NoiseStream;
use hypercore::net::ConnectionOptions;
use hypercore::{Hypercore, KeyPair, Memory, SessionOptions, SignOptions};

use crate::common::{Random, hex};

/// Whether `text` contains any eight bytes of `secret`, in hexadecimal or as a list of numbers.
fn shows(text: &str, secret: &[u8]) -> bool {
    let text = text.to_lowercase().replace(['\n', ' '], "");
    secret.windows(8).any(|part| {
        let numbers: Vec<String> = part.iter().map(u8::to_string).collect();
        text.contains(&hex(part)) || text.contains(&numbers.join(","))
    })
}

#[test]
#[cfg(target_os = "linux")]
fn purge_of_core_with_huge_sparse_header_file_fills_no_hole() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let core = Hypercore::options().user_data("big", vec![1; 9000]).open(dir.path()).unwrap();
    core.flush().unwrap();
    let header = std::fs::OpenOptions::new().write(true).open(dir.path().join("header")).unwrap();
    header.set_len(1 << 40).unwrap();
    core.purge().unwrap();
    assert!(header.metadata().unwrap().blocks() * 512 < 1 << 20);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
#[cfg(unix)]
fn purge_overwrites_secret_key_in_its_files() {
    let secret: [u8; 32] = Random::new(78).bytes(32).try_into().unwrap();
    for (blocks, user_data) in [(0, 0), (3, 0), (0, 9000), (3, 9000)] {
        let dir = tempfile::tempdir().unwrap();
        let links = tempfile::tempdir().unwrap();
        let options = Hypercore::options().key_pair(KeyPair::from_seed(&secret)).user_data("big", vec![1; user_data]);
        let core = options.open(dir.path()).unwrap();
        core.append_batch(vec!["block"; blocks]).unwrap();
        core.flush().unwrap();
        let names = ["oplog", "header"].into_iter().filter(|name| dir.path().join(name).exists());
        let names: Vec<_> =
            names.inspect(|name| std::fs::hard_link(dir.path().join(name), links.path().join(name)).unwrap()).collect();
        let leaks = || {
            names
                .iter()
                .any(|name| std::fs::read(links.path().join(name)).unwrap().windows(32).any(|part| part == secret))
        };
        assert!(leaks(), "{names:?}");
        core.purge().unwrap();
        assert!(!leaks(), "{blocks} blocks, {user_data} bytes of user data");
    }
}

#[test]
fn debug_output_and_errors_show_no_secret() {
    let secret: [u8; 32] = Random::new(77).bytes(32).try_into().unwrap();
    assert!(shows(&format!("{secret:?}"), &secret) && shows(&format!("{secret:#?}"), &secret));
    let pair = KeyPair::from_seed(&secret);
    let other = KeyPair::from_seed(&[3; 32]);
    let options = Hypercore::options().key_pair(pair.clone()).encryption_key(secret);
    let core = options.open_in(Memory::new()).unwrap();
    core.append("block").unwrap();
    let session = core.session(SessionOptions::new().key_pair(pair.clone()).encryption_key(secret)).unwrap();
    let (initiator, first) = Initiator::new(pair.clone(), pair.clone());
    let (answered, second) = Responder::new(other.clone(), pair.clone()).answer(&first).unwrap();
    let (third, secrets) = initiator.finish(&second).unwrap();
    let theirs = answered.finish(&third).unwrap();
    let things: Vec<Box<dyn Debug>> = vec![
        Box::new(pair.clone()),
        Box::new(SignOptions::new().key_pair(pair.clone())),
        Box::new(ConnectionOptions::new().key_pair(pair.clone())),
        Box::new(core.clone()),
        Box::new(session),
        Box::new(core.info(hypercore::InfoOptions::new()).unwrap()),
        Box::new(BlockCipher::new(&secret, &secret, true)),
        Box::new(NoiseStream::with_randomness(Role::Initiator, &pair, other, [0; 24])),
    ];
    for thing in &things {
        for text in [format!("{thing:?}"), format!("{thing:#?}")] {
            assert!(!shows(&text, &secret), "{text}");
            assert!(!shows(&text, &pair.secret_key()[..32]), "{text}");
        }
    }
    // The keys that both sides of a handshake derive.
    for (ours, text) in [(&secrets, format!("{secrets:?}")), (&theirs, format!("{theirs:#?}"))] {
        assert!(!shows(&text, &ours.tx[..]) && !shows(&text, &ours.rx[..]), "{text}");
    }
    // Errors about keys do not show them.
    let mut wrong = secret;
    wrong[0] ^= 1;
    let mut halves = *pair.secret_key();
    halves[40] ^= 1;
    let error = KeyPair::from_secret_key(&halves).unwrap_err();
    assert!(!shows(&format!("{error} {error:?}"), &secret));
    let error = core.append_with(["block"], SignOptions::new().key_pair(KeyPair::from_seed(&wrong))).unwrap_err();
    assert!(!shows(&format!("{error} {error:?}"), &wrong));
}

#[cfg(target_os = "linux")]
mod wiped {
    use std::fs::{self, File};
    use std::hint::black_box;
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    use hypercore::net::{Role, pipe};
    use hypercore::{Durability, Hypercore, KeyPair, Memory};

    use crate::common::Random;
    use crate::common::machine::SLOW;

    const MASK: u8 = 0xa5;

    /// The masked secret, so that the search does not find its own pattern.
    fn masked(seed: u64) -> Vec<u8> {
        Random::new(seed).bytes(32).iter().map(|byte| byte ^ MASK).collect()
    }

    /// How many copies of the secret the memory of this process has, except the stack of this thread, where moved
    /// values leave copies.
    fn copies(masked: &[u8]) -> usize {
        let here = 0_u8;
        let here = &raw const here as usize;
        let memory = File::open("/proc/self/mem").unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let mut found = 0;
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let (range, mode) = (words.next().unwrap(), words.next().unwrap());
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|address| usize::from_str_radix(address, 16).unwrap());
            if !mode.starts_with("rw") || (start..end).contains(&here) {
                continue;
            }
            let mut page = vec![0; 1 << 16];
            let mut at = start;
            while at < end {
                let n = page.len().min(end - at);
                if memory.read_exact_at(&mut page[..n], at as u64).is_err() {
                    break;
                }
                // The copy that this search makes is masked as well.
                page[..n].iter_mut().for_each(|byte| *byte ^= MASK);
                found += page[..n].windows(masked.len()).filter(|bytes| *bytes == masked).count();
                page.fill(0);
                at += n;
            }
        }
        found
    }

    fn secret_of(masked: &[u8], out: &mut [u8; 32]) {
        out.iter_mut().zip(masked).for_each(|(byte, masked)| *byte = masked ^ MASK);
    }

    #[test]
    #[ignore = "run by the test of this module in a process of its own"]
    fn helper_process() {
        let dir = tempfile::tempdir().unwrap();
        let [own, key] = [masked(5), masked(6)];
        {
            let mut secret = Box::new([0; 32]);
            secret_of(&own, &mut secret);
            assert!(copies(&own) > 0, "the search finds an existing copy");
            let pair = KeyPair::from_seed(&secret);
            let mut encryption = Box::new([0; 32]);
            secret_of(&key, &mut encryption);
            for encrypted in [false, true] {
                let options = || {
                    let options =
                        Hypercore::options().durability(Durability::Flush).overwrite(true).key_pair(pair.clone());
                    if encrypted { options.encryption_key(*encryption) } else { options }
                };
                let core = options().user_data("big", vec![1; 9000 * usize::from(encrypted)]).open(dir.path()).unwrap();
                core.append_batch(["one", "two"]).unwrap();
                core.flush().unwrap();
                core.truncate(1).unwrap();
                let copy = Hypercore::options().key(core.key()).open_in(Memory::new()).unwrap();
                let (a, b) = pipe();
                let lines = (copy.replicate(a, Role::Initiator).unwrap(), core.replicate(b, Role::Responder).unwrap());
                copy.get(0).unwrap();
                drop(lines);
                drop(copy);
                core.close().unwrap();
                drop(core);
                // The key pair is read from its file.
                let options = Hypercore::options();
                let options = if encrypted { options.encryption_key(*encryption) } else { options };
                let core = options.open(dir.path()).unwrap();
                assert!(core.writable());
                core.append("three").unwrap();
                core.close().unwrap();
            }
            drop(pair);
            // The caller has to wipe its own copies.
            secret.fill(0);
            encryption.fill(0);
            black_box((&secret, &encryption));
        }
        assert_eq!((copies(&own), copies(&key)), (0, 0), "copies of the seed and of the encryption key are left");
    }

    #[test]
    fn dropped_key_leaves_no_copy_in_memory() {
        // An emulator shows its own memory in place of the memory of the program.
        if SLOW {
            return;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["secrets::wiped::helper_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
