//! What a browser gives to its tabs, and no more: storage whose transactions are whole or not at all and
//! follow each other in each node's database, and locks that are released when their tab dies.

use std::collections::{BTreeMap, VecDeque};

use conflux::elastic::{self, Effect, Record, Registry, StopReason};
use conflux::host::types::Effect as HostEffect;
use conflux::host::types::Input;
use conflux::raft::NodeId;
use conflux::storage::{Fence, admit};

use crate::disk::{Disk, Write};
use crate::machine::State;

/// A page: a tab's number, and which of its pages it is.
pub type Page = (usize, u32);

/// A node's database, or 0 for the registry.
pub type Database = NodeId;

/// What a page asked of storage.
#[derive(Debug)]
pub struct Request {
    /// Who.
    pub page: Page,
    /// In which generation of its host.
    pub generation: u32,
    /// What.
    pub effect: HostEffect,
    /// It has begun: it may be durable, and nothing behind it runs before it ends.
    pub begun: bool,
}

/// A node's database.
#[derive(Debug)]
pub struct Stored {
    incarnation: u64,
    /// Raised by every host that takes the node.
    pub epoch: u64,
    /// What is durable.
    pub disk: Disk,
}

#[derive(Debug, Default)]
struct Lock {
    holder: Option<(Page, u32)>,
    queue: VecDeque<(Page, u32)>,
}

/// An answer for a page.
#[derive(Debug)]
pub struct Answer {
    /// For whom.
    pub page: Page,
    /// What.
    pub input: Input<State>,
}

/// One browser.
#[derive(Debug, Default)]
pub struct Browser {
    /// The registry.
    pub registry: Option<Registry>,
    /// The databases of the nodes.
    pub nodes: BTreeMap<NodeId, Stored>,
    /// What waits for each database.
    pub queues: BTreeMap<Database, VecDeque<Request>>,
    locks: BTreeMap<NodeId, Lock>,
    /// Answers about locks.
    pub answers: Vec<Answer>,
}

fn tenancy(generation: u32, input: elastic::Input) -> Input<State> {
    Input::Elastic { generation, input }
}

impl Browser {
    /// A page asks something of storage or locks. Gives the database whose queue has grown.
    pub fn ask(&mut self, page: Page, effect: HostEffect) -> Option<Database> {
        let (generation, database) = match &effect {
            HostEffect::Write { generation, node, .. } => (*generation, *node),
            HostEffect::Elastic { generation, effect } => match effect {
                Effect::ReadRegistry | Effect::Found(_) | Effect::Register(_) => (*generation, 0),
                Effect::DeleteAll => (*generation, 0),
                Effect::Load(node) | Effect::Delete(node) | Effect::Create { node, .. } => {
                    (*generation, *node)
                }
                lock => {
                    self.lock(page, *generation, lock);
                    return None;
                }
            },
            HostEffect::Listen(_) | HostEffect::Unlisten(_) | HostEffect::Record { .. } => {
                return None;
            }
        };
        let request = Request { page, generation, effect, begun: false };
        self.queues.entry(database).or_default().push_back(request);
        Some(database)
    }

    fn lock(&mut self, page: Page, generation: u32, effect: &Effect) {
        match effect {
            Effect::TryLock(node) => {
                let lock = self.locks.entry(*node).or_default();
                let granted = lock.holder.is_none() && lock.queue.is_empty();
                if granted {
                    lock.holder = Some((page, generation));
                }
                let input = tenancy(generation, elastic::Input::Lock { node: *node, granted });
                self.answers.push(Answer { page, input });
            }
            Effect::AwaitLock(node) => {
                self.locks.entry(*node).or_default().queue.push_back((page, generation));
                self.grant(*node);
            }
            Effect::StealLock(node) => {
                let lock = self.locks.entry(*node).or_default();
                if lock.holder.is_some_and(|(holder, _)| holder == page) {
                    return;
                }
                lock.queue.retain(|(waiter, _)| *waiter != page);
                if let Some((holder, generation)) = lock.holder.replace((page, generation)) {
                    let input = tenancy(generation, elastic::Input::Lost(*node));
                    self.answers.push(Answer { page: holder, input });
                }
                let granted = elastic::Input::Lock { node: *node, granted: true };
                self.answers.push(Answer { page, input: tenancy(generation, granted) });
            }
            Effect::Unlock(node) => self.release(*node, page),
            Effect::UnlockAll => self.release_all(page),
            _ => unreachable!("no lock: {effect:?}"),
        }
    }

    fn release(&mut self, node: NodeId, page: Page) {
        let lock = self.locks.entry(node).or_default();
        lock.queue.retain(|(waiter, _)| *waiter != page);
        if lock.holder.is_some_and(|(holder, _)| holder == page) {
            lock.holder = None;
            self.grant(node);
        }
    }

    /// A page lets go of everything, or is dead.
    pub fn release_all(&mut self, page: Page) {
        for node in self.locks.keys().copied().collect::<Vec<_>>() {
            self.release(node, page);
        }
    }

    fn grant(&mut self, node: NodeId) {
        let lock = self.locks.entry(node).or_default();
        if lock.holder.is_some() {
            return;
        }
        if let Some((page, generation)) = lock.queue.pop_front() {
            lock.holder = Some((page, generation));
            let input = tenancy(generation, elastic::Input::Lock { node, granted: true });
            self.answers.push(Answer { page, input });
        }
    }

    /// A lock is dropped, and its holder is not told.
    pub fn drop_lock(&mut self, nth: usize) -> Option<NodeId> {
        let held = |lock: &Lock| lock.holder.is_some() && !lock.queue.is_empty();
        let held = self.locks.iter().filter(|(_, lock)| held(lock)).map(|(node, _)| *node);
        let held: Vec<_> = held.collect();
        let node = *held.get(nth.checked_rem(held.len())?)?;
        self.locks.get_mut(&node)?.holder = None;
        self.grant(node);
        Some(node)
    }

    /// Whether this page holds a node's lock.
    pub fn holds(&self, page: Page, node: NodeId) -> bool {
        let holder = self.locks.get(&node).and_then(|lock| lock.holder);
        holder.is_some_and(|(holder, _)| holder == page)
    }

    /// Does what a request asks for, in one transaction.
    pub fn carry_out(&mut self, request: Request) -> Option<Answer> {
        let Request { page, generation, effect, .. } = request;
        let answer = |input| Some(Answer { page, input: tenancy(generation, input) });
        let effect = match effect {
            HostEffect::Write { node, epoch, persist, .. } => {
                let stored = self.nodes.get_mut(&node);
                return match (admit(stored.as_ref().map(|s| s.epoch), epoch), stored) {
                    (Ok(()), Some(stored)) => {
                        let seq = persist.seq;
                        stored.disk.start(Write::Raft(persist));
                        stored.disk.finish();
                        Some(Answer { page, input: Input::Persisted { generation, node, seq } })
                    }
                    (Err(Fence::NoRecord), _) if self.registry.is_none() => {
                        answer(elastic::Input::Failed(StopReason::StorageLost))
                    }
                    _ => answer(elastic::Input::Lost(node)),
                };
            }
            HostEffect::Elastic { effect, .. } => effect,
            HostEffect::Listen(_) | HostEffect::Unlisten(_) | HostEffect::Record { .. } => {
                return None;
            }
        };
        match effect {
            Effect::ReadRegistry => answer(elastic::Input::Registry(self.registry.clone())),
            Effect::Found(registry) => {
                let registry = self.registry.get_or_insert(registry).clone();
                answer(elastic::Input::Registry(Some(registry)))
            }
            Effect::Register(node) => match &mut self.registry {
                Some(registry) => {
                    registry.nodes.push(node);
                    answer(elastic::Input::Registered(node))
                }
                None => answer(elastic::Input::Failed(StopReason::StorageLost)),
            },
            Effect::Load(node) => {
                let record = self.nodes.get_mut(&node).map(|stored| {
                    stored.epoch += 1;
                    let (incarnation, epoch) = (stored.incarnation, stored.epoch);
                    Record { incarnation, epoch, saved: stored.disk.load() }
                });
                answer(elastic::Input::Loaded { node, record })
            }
            Effect::Create { node, incarnation, saved } => {
                let stored = Stored { incarnation, epoch: 1, disk: Disk::with(saved) };
                self.nodes.insert(node, stored);
                answer(elastic::Input::Created(node))
            }
            Effect::Delete(node) => {
                self.nodes.remove(&node);
                if let Some(registry) = &mut self.registry {
                    registry.nodes.retain(|other| *other != node);
                }
                answer(elastic::Input::Deleted(node))
            }
            Effect::DeleteAll => {
                self.registry = None;
                self.nodes.clear();
                None
            }
            effect => unreachable!("nothing for storage: {effect:?}"),
        }
    }
}
