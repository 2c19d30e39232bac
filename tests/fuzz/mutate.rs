//! A small mutator that is reproducible from its seed.

use std::fs;
use std::path::Path;

use sluicegate::stdx::ids::SplitMix;

/// Longest mutated input. What needs more is for libFuzzer.
const LENGTH_MAX: usize = 8192;

/// Numbers at which lengths, counts and times turn.
const EDGES: [u32; 14] =
    [0, 1, 2, 127, 128, 129, 255, 65_535, 65_536, 0xff_fffe, 0xff_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];

/// Runs `target` over its corpus and over `iterations` mutations of it.
///
/// Every iteration has a seed of its own, so that one of them can be repeated alone.
pub fn run(name: &str, iterations: u64, target: fn(&[u8])) {
    let corpus = corpus(name);
    for (file, data) in &corpus {
        let _context = Context { name, what: &format!("corpus file {file}"), data };
        target(data);
    }
    let first = setting("FUZZ_SEED").unwrap_or(0x51_u64);
    let count = setting("FUZZ_ITERATIONS").unwrap_or(iterations);
    for seed in (0..count).map(|i| first.wrapping_add(i)) {
        let data = mutated(seed, &corpus);
        let _context = Context { name, what: &format!("FUZZ_SEED={seed} FUZZ_ITERATIONS=1"), data: &data };
        target(&data);
    }
}

/// Says where we were if the target panics.
struct Context<'a> {
    name: &'a str,
    what: &'a str,
    data: &'a [u8],
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("fuzz target {} failed with {}, input {:02x?}", self.name, self.what, self.data);
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    // The order of a folder is the file system's, and a seed must mean the same everywhere.
    files.sort();
    assert!(!files.is_empty(), "the corpus of {name} is empty");
    files
}

fn mutated(seed: u64, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut dice = SplitMix::new(seed);
    let mut below = |bound: usize| usize::try_from(dice.below(bound as u64)).unwrap();
    let mut data = corpus[below(corpus.len())].1.clone();
    for _ in 0..=below(8) {
        let length = data.len();
        let at = below(length.max(1));
        let span = (1 + below(32)).min(length - at.min(length));
        match below(8) {
            0 if length > 0 => data[at] ^= 1 << below(8),
            1 if length > 0 => data[at] = u8::try_from(below(256)).unwrap(),
            2 => {
                let edge = EDGES[below(EDGES.len())].to_be_bytes();
                for (to, from) in data.iter_mut().skip(at).zip(&edge[below(4)..]) {
                    *to = *from;
                }
            }
            3 => drop(data.drain(at..at + span)),
            4 => {
                let copy = data[at..at + span].to_vec();
                let to = below(length + 1);
                data.splice(to..to, copy);
            }
            5 => data.truncate(at),
            6 => {
                let other = &corpus[below(corpus.len())].1;
                let from = below(other.len().max(1));
                let part = other.iter().skip(from).take(1 + below(400)).copied().collect::<Vec<_>>();
                data.splice(at..at, part);
            }
            _ => {
                let bytes = (0..=below(6)).map(|_| u8::try_from(below(256)).unwrap()).collect::<Vec<_>>();
                data.splice(at..at, bytes);
            }
        }
    }
    data.truncate(LENGTH_MAX);
    data
}
