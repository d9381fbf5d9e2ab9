//! How clusters end: a user ends the cluster, or the site's data are deleted, at any moment. What
//! is random here comes from a generator of its own, so that the other runs stay what they were.

use super::*;

/// Part of every seed of this generator. With this number, clusters do not end in the seeds that
/// once showed other bugs.
const SALT: u64 = 0xDB;

/// How clusters end in one run.
pub(super) struct Endings {
    rng: Xoshiro256PlusPlus,
    /// How many are still to come. After the last one there is time to see what has become of it.
    left: u32,
    /// The mean pause between two endings.
    pause: Micros,
    /// The next ending comes just after a request of this kind.
    moment: Option<u32>,
    /// What this page sends is lost: a page that dies does not send any more, and one that has just
    /// started does not hear what is for its cluster.
    silent: Option<Page>,
    /// At the very end of the run a user ends the cluster once more.
    last: bool,
    /// That has happened.
    is_final: bool,
}

impl Endings {
    /// In a quarter of the runs clusters end.
    pub(super) fn draw(seed: u64) -> Option<Self> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ SALT);
        let (ends, left, pause, last) = (
            rng.random_ratio(1, 4),
            rng.random_range(1..=8),
            rng.random_range(50_000..1_500_000),
            rng.random(),
        );
        ends.then_some(Self { rng, left, pause, moment: None, silent: None, last, is_final: false })
    }

    /// How long it takes until the next ending.
    pub(super) fn pause(&mut self) -> Micros {
        self.rng.random_range(0..self.pause * 2)
    }
}

/// How many kinds of requests [`moment`] knows.
const MOMENTS: u32 = 8;

/// The kind of a request after which it may matter that the cluster ends.
pub(super) fn moment(task: &Task) -> Option<u32> {
    use elastic::Effect as Ask;
    Some(match task {
        Task::Effect(Effect::Elastic { effect, .. }) => match effect {
            Ask::ReadRegistry => 0,
            Ask::Create { .. } => 1,
            Ask::Found(_) => 2,
            Ask::Register { .. } => 3,
            Ask::Load(_) => 4,
            Ask::Delete(_) => 5,
            Ask::DeleteAll => 6,
            _ => return None,
        },
        Task::Remove => 7,
        _ => return None,
    })
}

impl World {
    fn endings(&mut self) -> &mut Endings {
        self.endings.as_mut().expect("clusters end in this run")
    }

    /// Plans the next ending. In half of the cases it waits for a moment that matters.
    pub(super) fn plan_ending(&mut self) -> Check {
        let endings = self.endings();
        let (pause, waits) = (endings.pause(), endings.rng.random());
        if self.healed.is_some() || self.endings().left == 0 {
            return Ok(());
        }
        self.schedule(self.now + pause, Event::Ending { planned: true });
        if waits {
            let endings = self.endings();
            endings.moment = Some(endings.rng.random_range(0..MOMENTS));
            return Ok(());
        }
        self.end()
    }

    /// A cluster ends in one of several ways.
    pub(super) fn end(&mut self) -> Check {
        if self.healed.is_some() || self.endings().left == 0 {
            return Ok(());
        }
        let endings = self.endings();
        endings.left -= 1;
        // What the tabs found next may end at once as well.
        let again = endings.rng.random_range(1..=3);
        endings.moment = endings.rng.random::<bool>().then_some(again).or(endings.moment);
        match self.endings().rng.random_range(0..10) {
            0..4 => self.destroy(),
            4..6 => {
                self.send_away(false)?;
                self.destroy()
            }
            6 => {
                self.destroy()?;
                self.destroy()
            }
            7 => self.clear(),
            8 => {
                for at in self.awake() {
                    if self.endings().rng.random() {
                        self.stand_still(at);
                    }
                }
                self.clear()
            }
            _ => {
                self.send_away(true)?;
                self.clear()
            }
        }
    }

    /// A request was carried out. Perhaps the next ending has waited for it.
    pub(super) fn look_at_moment(&mut self, page: Page, kind: Option<u32>) {
        let now = self.now;
        let Some(endings) = &mut self.endings else { return };
        if kind.is_some() && endings.moment == kind {
            endings.moment = None;
            let (at, stays) = (now + endings.rng.random_range(0..3_000), endings.rng.random());
            self.schedule(at, Event::Ending { planned: false });
            // The page freezes before it goes on, so that others go on first.
            if stays && self.is_current(page) && self.tabs[page.0].frozen == Frozen::No {
                self.stand_still(page.0);
            }
        }
    }

    /// Some tabs, or all of them, close or go to the back/forward cache. From there they come back
    /// later.
    fn send_away(&mut self, all: bool) -> Check {
        for at in self.awake() {
            let rng = &mut self.endings().rng;
            if !all && rng.random() {
                continue;
            }
            let (closes, pause) = (rng.random_ratio(1, 3), rng.random_range(1_000..3_000_000));
            self.go_away(at, closes, pause)?;
        }
        Ok(())
    }

    /// A tab freezes without warning, in the middle of what it does.
    fn stand_still(&mut self, at: usize) {
        let pause = self.endings().rng.random_range(1_000..3_000_000);
        note!(self, "tab {at} freezes");
        self.tabs[at].frozen = Frozen::Everything;
        let page = (at, self.tabs[at].page);
        self.schedule(self.now + pause, Event::Thaw { page });
    }

    fn go_away(&mut self, at: usize, closes: bool, pause: Micros) -> Check {
        self.feed(at, Input::Suspend)?;
        if !self.tabs[at].open {
            return Ok(());
        }
        if closes {
            self.kill(at);
            return Ok(());
        }
        note!(self, "tab {at} goes to the back/forward cache");
        self.tabs[at].frozen = Frozen::Suspended;
        let page = (at, self.tabs[at].page);
        self.schedule(self.now + pause, Event::Thaw { page });
        Ok(())
    }

    /// The user of a page that ends the cluster has gone to another page.
    pub(super) fn leave(&mut self, page: Page) -> Check {
        if !self.is_current(page) || self.tabs[page.0].frozen != Frozen::No {
            return Ok(());
        }
        let rng = &mut self.endings().rng;
        let (closes, pause) = (rng.random(), rng.random_range(1_000..3_000_000));
        self.go_away(page.0, closes, pause)
    }

    /// The user of a tab ends the cluster, and may leave the page before everything is deleted.
    fn destroy(&mut self) -> Check {
        let awake = self.awake();
        if awake.is_empty() {
            return Ok(());
        }
        let rng = &mut self.endings().rng;
        let at = awake[rng.random_range(0..awake.len())];
        let soon = if rng.random() { 4_000 } else { 30_000 };
        let leaves = rng.random_ratio(1, 3).then(|| rng.random_range(0..soon));
        let dies = rng.random_ratio(1, 6).then(|| rng.random_range(0..6));
        let is_silent = rng.random_ratio(1, 4);
        let page = (at, self.tabs[at].page);
        self.endings().silent = is_silent.then_some(page);
        if let Some(pause) = leaves {
            self.schedule(self.now + pause, Event::Leave { page });
        }
        self.tabs[at].crash_after = dies.or(self.tabs[at].crash_after);
        self.destroy_from(at)
    }

    fn destroy_from(&mut self, at: usize) -> Check {
        let incarnation = self.incarnation(at);
        note!(self, "the user of tab {at} ends the cluster {incarnation:x}");
        self.stats.destroyed += 1;
        self.incarnations.destroy(incarnation);
        self.feed(at, Input::Destroy)
    }

    /// The site's data are deleted. Transactions that have begun happen before or after that.
    fn clear(&mut self) -> Check {
        note!(self, "the site's data are deleted");
        self.stats.cleared += 1;
        for database in self.browser.queues.keys().copied().collect::<Vec<_>>() {
            let queue = self.browser.queues.get_mut(&database).expect("just listed");
            if queue.front().is_some_and(|request| request.begun) && self.rng.random() {
                let request = queue.pop_front().expect("just seen");
                self.carry_out(database, request)?;
                self.begin(database);
            }
        }
        let before = self.browser.registry.as_ref().map(|registry| registry.incarnation);
        if let Some(before) = before {
            self.incarnations.destroy(before);
        }
        self.browser.clear();
        self.look_at_registry(before)
    }

    /// A host has stopped for good. Most users load the page again.
    pub(super) fn stop(&mut self, at: usize) -> Check {
        self.tabs[at].stopped = true;
        let waiting = self.tabs[at].core.status().waiting;
        if waiting > 0 {
            return Err(format!("tab {at} has stopped, but {waiting} performs and reads wait"));
        }
        if self.is_final() {
            return Ok(());
        }
        let rng = &mut self.endings().rng;
        if rng.random_ratio(3, 4) {
            let pause = rng.random_range(1_000..1_000_000);
            let page = (at, self.tabs[at].page);
            self.schedule(self.now + pause, Event::Reload { page });
        }
        Ok(())
    }

    pub(super) fn reload(&mut self, page: Page) -> Check {
        if !self.is_current(page) || self.is_final() {
            return Ok(());
        }
        self.kill(page.0);
        self.open()
    }

    /// Everything has recovered. In some runs a user then ends the cluster, and nothing may stay.
    pub(super) fn finish(&mut self) -> Check {
        let awake = self.awake();
        let frozen = |tab: &Tab| tab.open && tab.frozen != Frozen::No;
        let ends = self.endings.as_ref().is_some_and(|endings| endings.last);
        if !ends || self.tabs.iter().any(frozen) {
            self.done = true;
            return Ok(());
        }
        self.endings().is_final = true;
        self.healed = Some(self.now);
        self.destroy_from(awake[0])
    }

    /// Whether what a page sends is lost.
    pub(super) fn is_silent(&self, page: Page) -> bool {
        self.endings.as_ref().is_some_and(|endings| endings.silent == Some(page))
    }

    /// Whether the cluster is ended for the last time in this run.
    pub(super) fn is_final(&self) -> bool {
        self.endings.as_ref().is_some_and(|endings| endings.is_final)
    }

    /// Checks that the cluster has ended everywhere and that nothing of it stays.
    pub(super) fn check_final(&mut self) -> Check {
        let left = match self.awake().first() {
            Some(at) => Some(format!("tab {at} never stops")),
            None if self.browser.registry.is_some() => Some("the registry stays".into()),
            None => self.orphan(),
        };
        let late = self.now > self.healed.expect("the faults have stopped") + SETTLED_WITHIN;
        match left {
            None => self.done = true,
            Some(why) if late => return Err(format!("after the last destroy() {why}")),
            Some(_) => {}
        }
        Ok(())
    }
}
