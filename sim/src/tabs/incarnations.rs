//! What must hold of the clusters that follow each other in one browser, because users end them or
//! delete the site's data: each has a log of its own, and nothing of one is seen in another.

use super::*;

/// The clusters of a run, by incarnation.
#[derive(Default)]
pub(super) struct Incarnations {
    clusters: BTreeMap<u64, Cluster>,
    /// The nodes whose database stays, because the page that deleted it died in between.
    abandoned: BTreeSet<NodeId>,
}

#[derive(Default)]
struct Cluster {
    invariants: Invariants,
    /// The hashes of the states that its nodes have shown.
    states: BTreeSet<u64>,
    /// The client of each session that was seen.
    clients: BTreeMap<u64, u16>,
    founded: bool,
    /// A user has asked to end it, or the site's data were deleted.
    destroyed: bool,
    /// Its registry is deleted.
    over: bool,
}

impl Incarnations {
    fn cluster(&mut self, incarnation: u64) -> &mut Cluster {
        self.clusters.entry(incarnation).or_default()
    }

    /// The invariants of one cluster.
    pub(super) fn of(&mut self, incarnation: u64) -> &mut Invariants {
        &mut self.cluster(incarnation).invariants
    }

    /// The invariants of all clusters.
    pub(super) fn all(&self) -> impl Iterator<Item = &Invariants> {
        self.clusters.values().map(|cluster| &cluster.invariants)
    }

    /// A user has asked to end this cluster. Its hosts may say so from now on.
    pub(super) fn destroy(&mut self, incarnation: u64) {
        self.cluster(incarnation).destroyed = true;
    }

    /// The database of this node is not deleted, because the page that was to do that has died.
    pub(super) fn abandon(&mut self, node: NodeId) {
        self.abandoned.insert(node);
    }
}

impl World {
    /// The incarnation of the cluster to which the nodes of a tab belong.
    pub(super) fn incarnation(&self, at: usize) -> u64 {
        self.tabs[at].core.elastic().expect("an elastic cluster").incarnation()
    }

    /// Checks what has become of the registry, which had this incarnation before.
    pub(super) fn look_at_registry(&mut self, before: Option<u64>) -> Check {
        let registry = self.browser.registry.as_ref();
        let now = registry.map(|registry| registry.incarnation);
        if before == now {
            return Ok(());
        }
        if let Some(before) = before {
            note!(self, "the registry of {before:x} is deleted");
            let cluster = self.incarnations.cluster(before);
            cluster.over = true;
            if !cluster.destroyed {
                return Err(format!(
                    "the registry of {before:x} is deleted, but nobody wants that"
                ));
            }
        }
        let (Some(registry), Some(incarnation)) = (registry, now) else { return Ok(()) };
        let node = registry.nodes[0];
        note!(self, "the cluster {incarnation:x} is founded by {}", name(node));
        self.stats.founded += 1;
        let lives = |(_, cluster): &(&u64, &Cluster)| cluster.founded && !cluster.over;
        if let Some((other, _)) = self.incarnations.clusters.iter().find(lives) {
            return Err(format!("{incarnation:x} is founded beside {other:x}"));
        }
        let cluster = self.incarnations.cluster(incarnation);
        cluster.founded = true;
        cluster.invariants = Invariants::new(Members::voters([node]));
        cluster.states.insert(State::default().hash());
        match self.browser.nodes.get(&node) {
            Some(stored) => cluster.invariants.append(0, &stored.disk.load().entries),
            None => Err(format!("{incarnation:x} is founded without a node")),
        }
    }

    /// Checks after a transaction on the registry that its newest node, if that has a record, is of
    /// the same cluster. No host of another one would ever be answered.
    pub(super) fn look_at_nodes(&self, database: Database) -> Check {
        let Some(registry) = self.browser.registry.as_ref().filter(|_| database == 0) else {
            return Ok(());
        };
        let Some(node) = registry.nodes.last() else { return Ok(()) };
        match self.browser.nodes.get(node) {
            Some(stored) if stored.incarnation != registry.incarnation => Err(format!(
                "{} of {:x} is in the registry of {:x}",
                name(*node),
                stored.incarnation,
                registry.incarnation
            )),
            _ => Ok(()),
        }
    }

    /// A host has told its user about an error.
    pub(super) fn reported(&mut self, at: usize, failure: &store::Failure) -> Check {
        if failure.code == "REDUCER_FAILED" {
            return Ok(());
        }
        let incarnation = self.incarnation(at);
        let cluster = self.incarnations.cluster(incarnation);
        match failure.code.as_str() {
            "DESTROYED" if cluster.destroyed => {}
            "STORAGE_LOST" if cluster.over => {}
            _ => return Err(format!("tab {at} reports {failure:?}")),
        }
        self.stop(at)
    }

    /// Checks every node that runs in a tab. `states` says whether to check states, too: that is
    /// possible only when no user code runs.
    pub(super) fn check_nodes(&mut self, at: usize, states: bool) -> Check {
        let incarnation = self.incarnation(at);
        let tab = &mut self.tabs[at];
        let now = tab.clock.read(self.now);
        let elastic = tab.core.elastic().expect("an elastic cluster");
        let running: Vec<_> = elastic.running().collect();
        tab.lasts.retain(|node, _| running.contains(node));
        self.history.incarnation = incarnation;
        for node in running {
            let (Some(here), Some(epoch)) = (tab.core.node(node), tab.core.epoch(node)) else {
                continue;
            };
            let current = self.browser.nodes.get(&node).map(|stored| stored.epoch);
            let Some(raft) = here.raft() else { continue };
            let last = tab.lasts.entry(node).or_default();
            let cluster = self.incarnations.cluster(incarnation);
            cluster.states.insert(here.store().provisional().hash());
            cluster.states.insert(here.store().committed().hash());
            if current != Some(epoch) {
                // Another host has taken the node over, and this one does not know it. Still, what
                // it commits must be committed.
                cluster.invariants.look_at_commit(last, raft, &mut self.history)?;
                continue;
            }
            cluster.invariants.look_at_raft(last, raft, now, &mut self.history)?;
            if states {
                cluster.invariants.look_at_state(last, raft, here.store())?;
            }
        }
        self.check_own(at)
    }

    /// Checks that the user of a tab with a running node sees a state of the node's cluster, and
    /// that the session is the tab's own.
    fn check_own(&mut self, at: usize) -> Check {
        let incarnation = self.incarnation(at);
        let tab = &mut self.tabs[at];
        let Some(raft) = tab.core.own().raft() else { return Ok(()) };
        let node = raft.id();
        tab.incarnation = incarnation;
        let cluster = self.incarnations.cluster(incarnation);
        if !cluster.states.contains(&tab.core.committed().hash()) {
            return Err(format!(
                "tab {at} shows a state that no node of {incarnation:x} ever had, although it \
                 runs {}",
                name(node)
            ));
        }
        let Some(session) = tab.core.own().store().session() else { return Ok(()) };
        let client = tab.machine.client;
        let owner = *cluster.clients.entry(session).or_insert(client);
        match owner == client {
            true => Ok(()),
            false => Err(format!(
                "clients {owner} and {client} share session {session} of {incarnation:x}"
            )),
        }
    }

    /// A database that nobody needs, if there is one. What may stay is the database of a node that
    /// was never in the registry, because its host died or stopped while it made the node, and what
    /// a page that died has not deleted.
    pub(super) fn orphan(&self) -> Option<String> {
        let listed = self.browser.registry.iter().flat_map(|registry| &registry.nodes);
        let listed: BTreeSet<NodeId> = listed.copied().collect();
        let is_orphan = |node: &&NodeId| {
            !listed.contains(node)
                && self.browser.registered.contains(node)
                && !self.incarnations.abandoned.contains(node)
        };
        let orphan = self.browser.nodes.keys().find(is_orphan)?;
        Some(format!("the database of {} stays, and nobody needs it", name(*orphan)))
    }
}
