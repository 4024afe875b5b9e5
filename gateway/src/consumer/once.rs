//! `Once`: an object in which no name is said twice.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// See the [module](self). Of two values one program goes by the first and another by the last: what was checked here would not
/// be what a backend does.
pub(super) struct Once<K, V>(pub(super) BTreeMap<K, V>);

impl<'de, K, V> Deserialize<'de> for Once<K, V>
where
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Names(PhantomData))
    }
}

struct Names<K, V>(PhantomData<(K, V)>);

impl<'de, K, V> Visitor<'de> for Names<K, V>
where
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    type Value = Once<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut known = BTreeMap::new();
        while let Some((name, value)) = entries.next_entry::<K, V>()? {
            if known.contains_key(&name) {
                let name: String = name.to_string().chars().take(60).collect();
                return Err(A::Error::custom(format!("`{name}` is said twice")));
            }
            known.insert(name, value);
        }
        Ok(Once(known))
    }
}
