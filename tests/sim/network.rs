//! Who reaches whom, and how long it takes. The last index is pgbaton's.

use crate::world::World;

#[derive(Clone, Debug)]
pub struct Network {
    size: usize,
    /// `cut[from * size + to]`: by how many faults.
    cut: Vec<u32>,
    /// Milliseconds, of a message on a good day.
    pub base: (u64, u64),
    /// So many in a thousand have to be sent again.
    pub loss: u64,
}

impl Network {
    pub fn new(size: usize) -> Network {
        Network { size, cut: vec![0; size * size], base: (1, 3), loss: 0 }
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[from * self.size + to] > 0
    }

    pub fn cut(&mut self, links: &[(usize, usize)]) {
        for (from, to) in links {
            self.cut[from * self.size + to] += 1;
        }
    }

    pub fn heal(&mut self, links: &[(usize, usize)]) {
        for (from, to) in links {
            let count = &mut self.cut[from * self.size + to];
            *count = count.saturating_sub(1);
        }
    }

    pub fn heal_all(&mut self) {
        self.cut.fill(0);
        self.base = (1, 3);
        self.loss = 0;
    }
}

impl World {
    /// How long a message takes. TCP loses nothing; it sends again, and that takes time.
    pub fn delay(&mut self, _from: usize, _to: usize) -> u64 {
        let mut delay = self.random.between(self.net.base.0, self.net.base.1);
        let mut again = 200;
        while self.net.loss > 0 && again <= 800 && self.random.chance(self.net.loss) {
            delay += again;
            again *= 2;
        }
        delay
    }
}
