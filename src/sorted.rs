//! Maps and sets as sorted vectors, for collections that are small or grow at their end.
//!
//! The methods are named as those of `BTreeMap` and `BTreeSet`, whose code the compiler generates
//! anew for every type of key and value: it was a third of the code that a browser had to load. A
//! search is as fast as in a `BTreeMap`; to insert or remove an entry moves all entries behind it.

use std::borrow::Borrow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A map from keys to values, sorted by key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortedMap<K, V>(Vec<(K, V)>);

/// A sorted set of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortedSet<K>(SortedMap<K, ()>);

impl<K: Ord, V> SortedMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The place of a key, or, as the error, the place where it would be inserted.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        // Most new keys belong at the end.
        match self.0.last() {
            Some((last, _)) if last.borrow() < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(other, _)| other.borrow().cmp(key)),
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        Some(&self.0[at].1)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        Some(&mut self.0[at].1)
    }

    /// Whether a key has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// Sets the value of a key, and returns the value that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// The value of a key. A key without a value gets `value()`.
    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let at = self.find(&key).unwrap_or_else(|at| {
            self.0.insert(at, (key, value()));
            at
        });
        &mut self.0[at].1
    }

    /// Removes a key, and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.find(key).ok()?;
        Some(self.0.remove(at).1)
    }

    /// Keeps the entries for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// Removes the entries before a key.
    pub fn remove_before(&mut self, key: &K) {
        let at = self.find(key).unwrap_or_else(|at| at);
        self.0.drain(..at);
    }

    /// Removes a key and all entries behind it.
    pub fn truncate_from(&mut self, key: &K) {
        let at = self.find(key).unwrap_or_else(|at| at);
        self.0.truncate(at);
    }

    /// The entries from a key on.
    pub fn iter_from(&self, key: &K) -> impl Iterator<Item = (&K, &V)> {
        let at = self.find(key).unwrap_or_else(|at| at);
        self.0[at..].iter().map(|(key, value)| (key, value))
    }

    /// The entries.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The entries, their values to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

impl<K: Ord> SortedSet<K> {
    /// An empty set.
    pub const fn new() -> Self {
        Self(SortedMap::new())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a key is in the set.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// Adds a key, and returns whether it was not there before.
    pub fn insert(&mut self, key: K) -> bool {
        self.0.insert(key, ()).is_none()
    }

    /// Removes a key, and returns whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.remove(key).is_some()
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

impl<K: Ord, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord> Default for SortedSet<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K> IntoIterator for SortedSet<K> {
    type Item = K;
    type IntoIter = std::iter::Map<<SortedMap<K, ()> as IntoIterator>::IntoIter, fn((K, ())) -> K>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|(key, ())| key)
    }
}

impl<K: Ord, V> Extend<(K, V)> for SortedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord> Extend<K> for SortedSet<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        self.0.extend(keys.into_iter().map(|key| (key, ())));
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<K: Ord> FromIterator<K> for SortedSet<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        let mut set = Self::new();
        set.extend(keys);
        set
    }
}

impl<K: Serialize, V: Serialize> Serialize for SortedMap<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, K: Ord + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for SortedMap<K, V> {
    /// Decodes only keys that are in order, without duplicates. Keys come from peers, and to insert
    /// them one by one in any order could take too long.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<(K, V)>::deserialize(deserializer)?;
        let mut keys = entries.iter().map(|(key, _)| key);
        let mut last = keys.next();
        for key in keys {
            if last >= Some(key) {
                return Err(D::Error::custom("the keys of a map are out of order"));
            }
            last = Some(key);
        }
        Ok(Self(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn same(ours: &SortedMap<u8, u32>, theirs: &BTreeMap<u8, u32>) {
        assert!(ours.iter().eq(theirs.iter()));
        assert!(ours.keys().eq(theirs.keys()) && ours.values().eq(theirs.values()));
        assert_eq!((ours.len(), ours.is_empty()), (theirs.len(), theirs.is_empty()));
    }

    #[test]
    fn a_sorted_map_behaves_like_a_btree_map() {
        let mut rng = SmallRng::seed_from_u64(1);
        let (mut ours, mut theirs) = (SortedMap::new(), BTreeMap::new());
        for step in 0..20_000_u32 {
            let key = rng.random_range(0..40_u8);
            match rng.random_range(0..10) {
                0..4 => assert_eq!(ours.insert(key, step), theirs.insert(key, step)),
                4..6 => assert_eq!(ours.remove(&key), theirs.remove(&key)),
                6 => {
                    let ours = ours.get_or_insert_with(key, || step);
                    assert_eq!(ours, theirs.entry(key).or_insert(step));
                    *ours += 1;
                    *theirs.get_mut(&key).expect("just there") += 1;
                }
                7 if step % 9 == 0 => {
                    ours.remove_before(&key);
                    theirs = theirs.split_off(&key);
                }
                7 if step % 9 == 1 => {
                    ours.truncate_from(&key);
                    theirs.split_off(&key);
                }
                8 => {
                    ours.retain(|key, value| key % 7 != 3 || *value % 2 == 0);
                    theirs.retain(|key, value| key % 7 != 3 || *value % 2 == 0);
                }
                _ => {
                    ours.values_mut().for_each(|value| *value += 1);
                    ours.iter_mut().for_each(|(key, value)| *value += u32::from(*key));
                    theirs.iter_mut().for_each(|(key, value)| *value += 1 + u32::from(*key));
                }
            }
            same(&ours, &theirs);
            assert_eq!(ours.get(&key), theirs.get(&key));
            assert_eq!(ours.get_mut(&key), theirs.get_mut(&key));
            assert_eq!(ours.contains_key(&key), theirs.contains_key(&key));
            assert!(ours.iter_from(&key).eq(theirs.range(key..)));
        }
        assert!(ours.clone().into_iter().eq(theirs));
        ours.clear();
        assert_eq!(ours, SortedMap::default());
    }

    #[test]
    fn a_sorted_set_holds_each_key_once_and_in_order() {
        let mut set: SortedSet<&str> = ["b", "a", "b"].into_iter().collect();
        assert_eq!((set.len(), set.insert("a"), set.insert("c")), (2, false, true));
        assert_eq!((set.contains("b"), set.remove("b"), set.remove("b")), (true, true, false));
        assert!(set.iter().eq(&["a", "c"]) && !set.is_empty());
        assert!(set.clone().into_iter().eq(["a", "c"]));
        set.clear();
        assert!(set.is_empty());
        assert_eq!(set, SortedSet::default());
    }

    #[test]
    fn a_map_whose_keys_repeat_or_are_out_of_order_is_not_decoded() {
        let read = |pairs: Vec<(u8, u8)>| {
            let bytes = postcard::to_allocvec(&pairs).expect("it is encoded");
            postcard::from_bytes::<SortedMap<u8, u8>>(&bytes)
        };
        let map: SortedMap<u8, u8> = [(1, 5), (2, 4)].into_iter().collect();
        let bytes = postcard::to_allocvec(&map).expect("it is encoded");
        let theirs: BTreeMap<u8, u8> = map.clone().into_iter().collect();
        assert_eq!(postcard::to_allocvec(&theirs), Ok(bytes.clone()));
        assert_eq!(postcard::from_bytes(&bytes), Ok(map));
        assert!(read(vec![(2, 4), (1, 5)]).is_err() && read(vec![(1, 4), (1, 5)]).is_err());
    }
}
