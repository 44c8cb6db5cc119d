//! The links between nodes and dispatcher, each over a path that fails on request, and what can befall them.

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use common::link::relay::FaultyPath;
use rand::{Rng, rngs::StdRng};
use standalone::Way;

/// A path for each node.
pub struct Links(BTreeMap<String, FaultyPath>);

impl Links {
    /// For the nodes that a cluster of so many begins with.
    pub async fn of(nodes: u16) -> Arc<Self> {
        let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let mut paths = BTreeMap::new();
        for node in 1..=nodes {
            paths.insert(format!("node-{node}"), FaultyPath::to(nowhere).await.unwrap());
        }
        Arc::new(Self(paths))
    }

    /// The way from each node to the dispatcher, over its path.
    pub fn way(self: &Arc<Self>) -> Box<Way> {
        let links = Arc::clone(self);
        Box::new(move |node, dispatcher| {
            let path = &links.0[node];
            path.retarget(dispatcher);
            path.addr()
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &FaultyPath)> {
        self.0.iter().map(|(node, path)| (node.as_str(), path))
    }
}

/// What befalls a path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Cut,
    CutThere,
    CutBack,
    Loses {
        share: f64,
    },
    Slow {
        delay: Duration,
        jitter: Duration,
    },
    Doubles {
        share: f64,
    },
    Narrow {
        bytes_per_second: u32,
    },
    /// All but cut.
    Bad,
}

impl Fault {
    /// One of them.
    pub fn any(random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0..=1 => Self::Cut,
            2 => Self::CutThere,
            3 => Self::CutBack,
            4..=5 => Self::Loses { share: random.random_range(0.05..0.5) },
            6..=7 => {
                let delay = Duration::from_millis(random.random_range(0..300));
                Self::Slow { delay, jitter: Duration::from_millis(random.random_range(0..200)) }
            }
            8 if random.random() => Self::Doubles { share: random.random_range(0.1..1.0) },
            8 => Self::Narrow { bytes_per_second: random.random_range(2_000..60_000) },
            _ => Self::Bad,
        }
    }

    /// Befalls the path, until it heals.
    pub fn befall(self, path: &FaultyPath, seed: u64) {
        path.seed(seed);
        match self {
            Self::Cut => path.cut(),
            Self::CutThere => path.cut_there(),
            Self::CutBack => path.cut_back(),
            Self::Loses { share } => path.lose(share, seed),
            Self::Slow { delay, jitter } => path.delay_unevenly(delay, jitter),
            Self::Doubles { share } => path.double(share),
            Self::Narrow { bytes_per_second } => path.narrow(bytes_per_second),
            Self::Bad => {
                path.lose(0.1, seed);
                path.double(0.2);
                path.delay_unevenly(Duration::from_millis(30), Duration::from_millis(100));
                path.narrow(60_000);
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("cut both ways"),
            Self::CutThere => f.write_str("cut to the dispatcher"),
            Self::CutBack => f.write_str("cut from the dispatcher"),
            Self::Loses { share } => write!(f, "{:.0} % lost", share * 100.0),
            Self::Slow { delay, jitter } => {
                write!(f, "{} to {} ms late", delay.as_millis(), (*delay + *jitter).as_millis())
            }
            Self::Doubles { share } => write!(f, "{:.0} % twice", share * 100.0),
            Self::Narrow { bytes_per_second } => write!(f, "{bytes_per_second} bytes a second"),
            Self::Bad => f.write_str("lossy, late, doubled and narrow"),
        }
    }
}
