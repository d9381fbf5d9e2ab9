//! The storage and the locks that a browser offers its tabs, and no more than it promises. In each
//! database, transactions happen completely or not at all, one after the other. A lock is released
//! when its tab dies.

use std::collections::{BTreeMap, VecDeque};

use conflux::elastic::{self, Effect, Record, Registry, StopReason};
use conflux::host::types::Effect as HostEffect;
use conflux::host::types::Input;
use conflux::raft::NodeId;
use conflux::storage::{Fence, admit};

use crate::disk::{Disk, Write};
use crate::machine::State;

/// A page: the number of its tab, and which of the tab's pages it is, counted from 1.
pub type Page = (usize, u32);

/// The id of the node whose database it is, or 0 for the registry.
pub type Database = NodeId;

/// A request of a page to storage.
#[derive(Debug)]
pub struct Request {
    /// The page that made it.
    pub page: Page,
    /// The generation of the page's host.
    pub generation: u32,
    /// What the page asked for.
    pub effect: HostEffect,
    /// Whether it has begun. Then it may become durable even if the page dies, and no other request
    /// of its database runs before it has ended.
    pub begun: bool,
}

/// A node's database.
#[derive(Debug)]
pub struct Stored {
    incarnation: u64,
    /// Raised by every host that takes the node over.
    pub epoch: u64,
    /// What is durable.
    pub disk: Disk,
}

#[derive(Debug, Default)]
struct Lock {
    holder: Option<(Page, u32)>,
    queue: VecDeque<(Page, u32)>,
}

/// An answer to a page.
#[derive(Debug)]
pub struct Answer {
    /// The page.
    pub page: Page,
    /// The input for the page's host.
    pub input: Input<State>,
}

/// One browser.
#[derive(Debug, Default)]
pub struct Browser {
    /// The registry.
    pub registry: Option<Registry>,
    /// The databases of the nodes.
    pub nodes: BTreeMap<NodeId, Stored>,
    /// The requests to each database, in order.
    pub queues: BTreeMap<Database, VecDeque<Request>>,
    locks: BTreeMap<NodeId, Lock>,
    /// Answers about locks that have not been delivered yet.
    pub answers: Vec<Answer>,
}

fn elastic_input(generation: u32, input: elastic::Input) -> Input<State> {
    Input::Elastic { generation, input }
}

impl Browser {
    /// Takes a request of a page to storage or locks. Gives the database in whose queue it waits,
    /// if there is one.
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
                let input =
                    elastic_input(generation, elastic::Input::Lock { node: *node, granted });
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
                    let input = elastic_input(generation, elastic::Input::Lost(*node));
                    self.answers.push(Answer { page: holder, input });
                }
                let granted = elastic::Input::Lock { node: *node, granted: true };
                self.answers.push(Answer { page, input: elastic_input(generation, granted) });
            }
            Effect::Unlock(node) => self.release(*node, page),
            Effect::UnlockAll => self.release_all(page),
            _ => unreachable!("not about a lock: {effect:?}"),
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

    /// Releases all locks of a page, and takes the page out of all queues.
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
            let input = elastic_input(generation, elastic::Input::Lock { node, granted: true });
            self.answers.push(Answer { page, input });
        }
    }

    /// Takes a lock from its holder without telling the holder, and grants it to the next page in
    /// the queue. Gives the node. `nth` selects one of the locks for which a page waits.
    pub fn drop_lock(&mut self, nth: usize) -> Option<NodeId> {
        let held = |lock: &Lock| lock.holder.is_some() && !lock.queue.is_empty();
        let held = self.locks.iter().filter(|(_, lock)| held(lock)).map(|(node, _)| *node);
        let held: Vec<_> = held.collect();
        let node = *held.get(nth.checked_rem(held.len())?)?;
        self.locks.get_mut(&node)?.holder = None;
        self.grant(node);
        Some(node)
    }

    /// Whether this page holds the lock of this node.
    pub fn holds(&self, page: Page, node: NodeId) -> bool {
        let holder = self.locks.get(&node).and_then(|lock| lock.holder);
        holder.is_some_and(|(holder, _)| holder == page)
    }

    /// Carries out a request, in one transaction. Gives the answer, if there is one.
    pub fn carry_out(&mut self, request: Request) -> Option<Answer> {
        let Request { page, generation, effect, .. } = request;
        let answer = |input| Some(Answer { page, input: elastic_input(generation, input) });
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
            effect => unreachable!("not about storage: {effect:?}"),
        }
    }
}
