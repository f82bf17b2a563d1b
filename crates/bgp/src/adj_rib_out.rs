//! Adj-RIB-Out of one session: what the peer was told, and what it must still
//! be told so that it holds exactly what is wanted.
//!
//! [`AdjRibOut::plan`] compares the desired set with what was told, and
//! [`AdjRibOut::next_message`] writes one message at a time, as the connection
//! takes them. A newer desired set replaces the plan, so a slow peer lags but
//! nothing queues. Prefixes with equal attributes share UPDATEs. Where all that
//! was planned is out, only what differs from the desired set before is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use ipnet::IpNet;

use crate::digest::Digest;
use crate::export::{Exported, Exporter};
use crate::family::Family;
use crate::message::{self, Marker, Nlri, Style};
use crate::route::{Attributes, Path, RouteSet};

/// What one family of a session amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FamilyState {
    /// Prefixes written.
    pub advertised: Digest,
    /// Desired prefixes that cannot be sent.
    pub unsendable: u64,
    /// End-of-RIB was written.
    pub end_of_rib: bool,
    refresh: Option<Refresh>,
}

/// A refresh that the peer asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refresh {
    /// The marker of its begin is still to be written.
    Wanted,
    /// Routes are on their way; the end marker follows them.
    Running,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct AdjRibOut {
    style: Style,
    /// The peer wants refreshes marked (RFC 7313).
    mark_refresh: bool,
    told: BTreeMap<Nlri, Arc<Exported>>,
    /// Told, but to be said again.
    repeat: BTreeSet<Nlri>,
    withdrawals: VecDeque<Vec<Nlri>>,
    announcements: VecDeque<(Arc<Exported>, Vec<Nlri>)>,
    families: BTreeMap<Family, FamilyState>,
    complete: bool,
    known: HashMap<Exported, Arc<Exported>>,
    path_ids: BTreeMap<IpAddr, u32>,
    /// What the last plan was made of.
    planned: Option<(RouteSet, Exporter)>,
    /// Something planned since the last whole plan could not be said.
    gave_up: bool,
}

impl AdjRibOut {
    /// An empty one for a new session.
    pub(crate) fn new(style: Style, families: &[Family], mark_refresh: bool) -> Self {
        Self {
            style,
            mark_refresh,
            told: BTreeMap::new(),
            repeat: BTreeSet::new(),
            withdrawals: VecDeque::new(),
            announcements: VecDeque::new(),
            families: families
                .iter()
                .map(|family| (*family, FamilyState::default()))
                .collect(),
            complete: false,
            known: HashMap::new(),
            path_ids: BTreeMap::new(),
            planned: None,
            gave_up: false,
        }
    }

    /// The families with their state.
    pub(crate) fn families(&self) -> &BTreeMap<Family, FamilyState> {
        &self.families
    }

    /// Whether everything planned is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.withdrawals.is_empty()
            && self.announcements.is_empty()
            && self
                .families
                .values()
                .all(|state| state.refresh.is_none() && (state.end_of_rib || !self.complete))
    }

    /// Plans what leads from what was told to what is desired.
    pub(crate) fn plan(&mut self, desired: &RouteSet, towards: &Exporter) {
        self.complete = desired.is_complete();
        self.known.retain(|_, shared| Arc::strong_count(shared) > 1);
        match self.planned.take() {
            Some((before, exporter)) if self.told_all() && exporter == *towards => {
                self.plan_changes(&before, desired, towards);
            }
            _ => self.plan_all(desired, towards),
        }
        self.planned = Some((desired.clone(), towards.clone()));
    }

    /// Whether what was told is just what was planned, each prefix with one path at most.
    fn told_all(&self) -> bool {
        self.withdrawals.is_empty()
            && self.announcements.is_empty()
            && self.repeat.is_empty()
            && self.path_ids.is_empty()
            && !self.gave_up
    }

    /// Plans for the prefixes in which the sets differ.
    fn plan_changes(&mut self, before: &RouteSet, desired: &RouteSet, towards: &Exporter) {
        let mut plan = Plan::default();
        let mut cache = Cache::default();
        let mut used_ids = BTreeSet::new();
        for (prefix, old, new) in desired.since(before) {
            let old = self.wanted(prefix, old, towards, &mut cache, &mut used_ids);
            self.unsendable(prefix, old.as_ref(), u64::wrapping_sub);
            let new = self.wanted(prefix, new, towards, &mut cache, &mut used_ids);
            self.unsendable(prefix, new.as_ref(), u64::wrapping_add);
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            match (old.first(), new.first()) {
                (_, Some((nlri, want))) if self.told.get(nlri) != Some(want) => {
                    plan.announce(*nlri, want);
                }
                (Some((nlri, _)), None) => plan.withdraw(*nlri),
                _ => {}
            }
        }
        self.follow(plan);
    }

    /// Plans for every prefix.
    fn plan_all(&mut self, desired: &RouteSet, towards: &Exporter) {
        let mut plan = Plan::default();
        self.gave_up = false;
        for state in self.families.values_mut() {
            state.unsendable = 0;
        }
        let told = std::mem::take(&mut self.told);
        let mut next_told = told.iter().peekable();
        let mut used_ids: BTreeSet<IpAddr> = BTreeSet::new();
        let mut cache = Cache::default();
        for (prefix, paths) in desired.iter() {
            // Everything told that comes before this prefix is not desired.
            while let Some((nlri, _)) = next_told.next_if(|(nlri, _)| nlri.prefix < *prefix) {
                plan.withdraw(*nlri);
            }
            let wanted = self.wanted(*prefix, paths, towards, &mut cache, &mut used_ids);
            self.unsendable(*prefix, wanted.as_ref(), u64::wrapping_add);
            let mut wanted = wanted.unwrap_or_default();
            while let Some((nlri, have)) = next_told.next_if(|(nlri, _)| nlri.prefix == *prefix) {
                used_ids.insert(have.next_hop);
                match wanted.iter().position(|(want, _)| want == nlri) {
                    None => plan.withdraw(*nlri),
                    Some(position) => {
                        let (_, want) = wanted.swap_remove(position);
                        if !Arc::ptr_eq(&want, have) && want != *have || self.repeat.contains(nlri)
                        {
                            plan.announce(*nlri, &want);
                        }
                    }
                }
            }
            for (nlri, want) in wanted {
                plan.announce(nlri, &want);
            }
        }
        for (nlri, _) in next_told {
            plan.withdraw(*nlri);
        }
        self.told = told;
        self.path_ids
            .retain(|next_hop, _| used_ids.contains(next_hop));
        self.follow(plan);
    }

    fn follow(&mut self, plan: Plan) {
        self.withdrawals = plan.withdrawals.into_values().collect();
        self.announcements = plan.announcements.into();
    }

    /// Counts a prefix with paths of which none can be sent.
    fn unsendable(
        &mut self,
        prefix: IpNet,
        wanted: Option<&Wanted>,
        count: impl Fn(u64, u64) -> u64,
    ) {
        if wanted.is_some_and(Vec::is_empty)
            && let Some(state) = self.families.get_mut(&Family::of(&prefix))
        {
            state.unsendable = count(state.unsendable, 1);
        }
    }

    /// The paths this peer should hold for a prefix; `None` where none is meant for it.
    fn wanted(
        &mut self,
        prefix: IpNet,
        paths: &[Path],
        towards: &Exporter,
        cache: &mut Cache,
        used_ids: &mut BTreeSet<IpAddr>,
    ) -> Option<Wanted> {
        let family = Family::of(&prefix);
        if !self.families.contains_key(&family) {
            return None;
        }
        let several = towards.add_path.contains(&family);
        let mut wanted = Wanted::new();
        let mut selected = false;
        for path in paths
            .iter()
            .filter(|path| path.peers.contains(&towards.peer))
        {
            selected = true;
            let Some(exported) = cache.export(family, &path.attributes, towards, &mut self.known)
            else {
                continue;
            };
            let path_id = if several {
                used_ids.insert(exported.next_hop);
                self.path_id(exported.next_hop)
            } else {
                0
            };
            let nlri = Nlri { prefix, path_id };
            if wanted.iter().all(|(other, _)| *other != nlri) {
                wanted.push((nlri, exported));
            }
            if !several {
                break;
            }
        }
        selected.then_some(wanted)
    }

    /// The identifier of paths with this next hop: stable while in use.
    fn path_id(&mut self, next_hop: IpAddr) -> u32 {
        if let Some(id) = self.path_ids.get(&next_hop) {
            return *id;
        }
        let taken: BTreeSet<u32> = self.path_ids.values().copied().collect();
        let id = (1..=u32::MAX)
            .find(|id| !taken.contains(id))
            .unwrap_or(u32::MAX);
        self.path_ids.insert(next_hop, id);
        id
    }

    /// Says everything of a family again (RFC 2918). The caller plans next.
    pub(crate) fn refresh(&mut self, family: Family) {
        let Some(state) = self.families.get_mut(&family) else {
            return;
        };
        state.refresh = Some(Refresh::Wanted);
        self.repeat.extend(
            self.told
                .keys()
                .filter(|nlri| nlri.family() == family)
                .copied(),
        );
    }

    /// Writes the next message; `false` when there is nothing more to say.
    pub(crate) fn next_message(&mut self, out: &mut BytesMut) -> bool {
        self.write_begin_marker(out)
            || self.write_withdrawal(out)
            || self.write_announcement(out)
            || self.write_end_marker(out)
            || self.write_end_of_rib(out)
    }

    fn write_begin_marker(&mut self, out: &mut BytesMut) -> bool {
        for (family, state) in &mut self.families {
            if state.refresh == Some(Refresh::Wanted) {
                state.refresh = Some(Refresh::Running);
                if self.mark_refresh {
                    return message::refresh_marker(out, *family, Marker::Begin).is_ok();
                }
            }
        }
        false
    }

    fn write_end_marker(&mut self, out: &mut BytesMut) -> bool {
        for (family, state) in &mut self.families {
            if state.refresh == Some(Refresh::Running) {
                state.refresh = None;
                if self.mark_refresh {
                    return message::refresh_marker(out, *family, Marker::End).is_ok();
                }
            }
        }
        false
    }

    fn write_withdrawal(&mut self, out: &mut BytesMut) -> bool {
        while let Some(nlri) = self.withdrawals.front_mut() {
            let count = match message::withdraw(out, nlri, &self.style) {
                Ok(count) if count > 0 => count,
                _ => {
                    // Nothing that can be withdrawn is too long for a message.
                    self.withdrawals.pop_front();
                    continue;
                }
            };
            let done: Vec<Nlri> = nlri.drain(..count).collect();
            if nlri.is_empty() {
                self.withdrawals.pop_front();
            }
            for nlri in done {
                self.forget(nlri);
            }
            return true;
        }
        false
    }

    fn write_announcement(&mut self, out: &mut BytesMut) -> bool {
        while let Some((exported, nlri)) = self.announcements.front_mut() {
            let exported = Arc::clone(exported);
            let count = match message::announce(out, &exported, nlri, &self.style) {
                Ok(count) if count > 0 => count,
                _ => {
                    // The attributes alone fill a message: these routes cannot
                    // be sent. What was told of them before is no longer true.
                    let unsendable = std::mem::take(nlri);
                    self.announcements.pop_front();
                    self.give_up(&unsendable);
                    if self.write_withdrawal(out) {
                        return true;
                    }
                    continue;
                }
            };
            let done: Vec<Nlri> = nlri.drain(..count).collect();
            if nlri.is_empty() {
                self.announcements.pop_front();
            }
            for nlri in done {
                self.remember(nlri, &exported);
            }
            return true;
        }
        false
    }

    fn write_end_of_rib(&mut self, out: &mut BytesMut) -> bool {
        if !self.complete {
            return false;
        }
        for (family, state) in &mut self.families {
            if !state.end_of_rib {
                state.end_of_rib = true;
                return message::end_of_rib(out, *family, &self.style).is_ok();
            }
        }
        false
    }

    fn give_up(&mut self, unsendable: &[Nlri]) {
        self.gave_up = true;
        let mut told = Vec::new();
        for nlri in unsendable {
            if let Some(state) = self.families.get_mut(&nlri.family()) {
                state.unsendable += 1;
            }
            if self.told.contains_key(nlri) {
                told.push(*nlri);
            }
        }
        if !told.is_empty() {
            self.withdrawals.push_back(told);
        }
    }

    fn other_path_told(&self, nlri: Nlri) -> bool {
        let range = Nlri { path_id: 0, ..nlri }..=Nlri {
            path_id: u32::MAX,
            ..nlri
        };
        self.told.range(range).any(|(other, _)| *other != nlri)
    }

    fn remember(&mut self, nlri: Nlri, exported: &Arc<Exported>) {
        self.repeat.remove(&nlri);
        let new = self.told.insert(nlri, Arc::clone(exported)).is_none();
        if new
            && !self.other_path_told(nlri)
            && let Some(state) = self.families.get_mut(&nlri.family())
        {
            state.advertised.add(nlri.prefix);
        }
    }

    fn forget(&mut self, nlri: Nlri) {
        self.repeat.remove(&nlri);
        let known = self.told.remove(&nlri).is_some();
        if known
            && !self.other_path_told(nlri)
            && let Some(state) = self.families.get_mut(&nlri.family())
        {
            state.advertised.remove(nlri.prefix);
        }
    }
}

/// The paths of a prefix as they are to be told.
type Wanted = Vec<(Nlri, Arc<Exported>)>;

/// What [`AdjRibOut::plan`] collects.
#[derive(Default)]
struct Plan {
    withdrawals: BTreeMap<Family, Vec<Nlri>>,
    announcements: Vec<(Arc<Exported>, Vec<Nlri>)>,
    groups: HashMap<(Family, *const Exported), usize>,
}

impl Plan {
    fn withdraw(&mut self, nlri: Nlri) {
        self.withdrawals
            .entry(nlri.family())
            .or_default()
            .push(nlri);
    }

    fn announce(&mut self, nlri: Nlri, exported: &Arc<Exported>) {
        let group = *self
            .groups
            .entry((nlri.family(), Arc::as_ptr(exported)))
            .or_insert_with(|| {
                self.announcements.push((Arc::clone(exported), Vec::new()));
                self.announcements.len() - 1
            });
        if let Some((_, members)) = self.announcements.get_mut(group) {
            members.push(nlri);
        }
    }
}

/// Exports each set of attributes once per plan. Sets that are equal but not
/// shared by the caller become one by their value.
#[derive(Default)]
struct Cache {
    by_address: HashMap<CacheKey, Option<Arc<Exported>>>,
    last: Option<(CacheKey, Option<Arc<Exported>>)>,
}

/// The address stays taken while a plan is made: the desired set holds it.
type CacheKey = (Family, *const Attributes);

impl Cache {
    fn export(
        &mut self,
        family: Family,
        attributes: &Arc<Attributes>,
        towards: &Exporter,
        known: &mut HashMap<Exported, Arc<Exported>>,
    ) -> Option<Arc<Exported>> {
        let key = (family, Arc::as_ptr(attributes));
        if let Some((last, exported)) = &self.last
            && *last == key
        {
            return exported.clone();
        }
        let exported = self
            .by_address
            .entry(key)
            .or_insert_with(|| {
                let exported = towards.export(family, attributes)?;
                let shared = known
                    .entry(exported.clone())
                    .or_insert_with(|| Arc::new(exported));
                Some(Arc::clone(shared))
            })
            .clone();
        self.last = Some((key, exported.clone()));
        exported
    }
}

#[cfg(test)]
mod tests;
