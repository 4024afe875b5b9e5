//! A place for each connection: among all, and among those of its address.

use std::net::IpAddr;
use std::sync::Arc;

use groupcast_protocol::Refusal;
use http::{HeaderMap, HeaderName, Version};

use crate::config::{Config, Network};
use crate::limits::{Client, Limited, Limits, Seat, forwarded};

/// Where proxies say whom they bring.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Lets connections in. A cheap handle.
#[derive(Clone)]
pub(crate) struct Admission {
    limits: Limits,
    /// Whoever speaks for others is not counted for them.
    proxies: Arc<[Network]>,
}

/// A place for one connection; given back when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Place(Arc<Taken>);

struct Taken {
    admission: Admission,
    client: Client,
    _among_all: Among,
    _of_address: Option<Seat>,
}

/// The place among all: one of its own, or that of the connection that carries it.
enum Among {
    Own(Limits),
    Carrier { _place: Place },
}

impl Admission {
    pub(crate) fn new(config: &Config, limits: Limits) -> Self {
        Self { limits, proxies: config.server.trusted_proxies.clone().into() }
    }

    /// # Errors
    /// Too many at once, or new ones too fast, of all or of this address.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Place, Limited> {
        let among = self.among()?;
        if self.proxies.iter().any(|proxy| proxy.contains(address.to_canonical())) {
            // Whom it brings is counted when he says who he is.
            return Ok(self.place(self.limits.client(address), among, None));
        }
        self.enter_as(self.limits.client(address), among)
    }

    fn enter_as(&self, client: Client, among: Among) -> Result<Place, Limited> {
        let seat = self.limits.seat_at(client)?;
        self.limits.connect(client)?;
        Ok(self.place(client, among, Some(seat)))
    }

    fn among(&self) -> Result<Among, Limited> {
        self.limits.enter()?;
        Ok(Among::Own(self.limits.clone()))
    }

    fn place(&self, client: Client, among: Among, seat: Option<Seat>) -> Place {
        Place(Arc::new(Taken { admission: self.clone(), client, _among_all: among, _of_address: seat }))
    }
}

impl Place {
    /// Whose it is: the other end of the socket.
    pub(crate) fn client(&self) -> Client {
        self.0.client
    }

    /// Who asks by this socket: the other end, or whom a proxy of ours says that it brings.
    pub(crate) fn whom(&self, peer: IpAddr, headers: &HeaderMap) -> (IpAddr, Client) {
        let Admission { limits, proxies } = &self.0.admission;
        if proxies.is_empty() {
            return (peer, self.0.client);
        }
        let values = headers.get_all(FORWARDED_FOR).into_iter().filter_map(|value| value.to_str().ok());
        match forwarded(peer, proxies, values) {
            Some(address) => (address, limits.client(address)),
            None => (peer, self.0.client),
        }
    }

    /// The place of a WebSocket or event stream that a client has asked for: that of its socket, unless the socket carries
    /// others as well. Over HTTP/2, and from behind a proxy, each has a place of its own.
    ///
    /// # Errors
    /// `overloaded` or `rate_limited`, as for a new connection.
    pub(crate) fn of_stream(&self, version: Version, client: Client) -> Result<Self, Refusal> {
        let admission = &self.0.admission;
        let carried = || Among::Carrier { _place: self.clone() };
        Ok(match (version < Version::HTTP_2, client == self.0.client) {
            (true, true) => self.clone(),
            (true, false) => admission.enter_as(client, carried())?,
            (false, _) => admission.enter_as(client, admission.among()?)?,
        })
    }
}

impl Drop for Among {
    fn drop(&mut self) {
        match self {
            Self::Own(limits) => limits.leave(),
            Self::Carrier { .. } => {}
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.0.client).finish()
    }
}

#[cfg(test)]
mod tests {
    use groupcast_protocol::ErrorCode;

    use super::*;
    use crate::config::LimitsConfig;
    use crate::limits::Limit;

    fn admission(limits: LimitsConfig) -> Admission {
        let mut config = Config { limits, ..Config::default() };
        config.server.trusted_proxies = vec!["10.0.0.0/8".parse().expect("a network")];
        Admission::new(&config, Limits::new(&config.limits))
    }

    fn refused(outcome: Result<Place, Limited>) -> Option<Limit> {
        outcome.err().map(|limited| limited.limit)
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let limits = LimitsConfig { connections: 3, connections_per_address: 2, ..LimitsConfig::default() };
        let admission = admission(limits);
        let (one, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = admission.enter(one).expect("there is room");
        let _second = admission.enter(one).expect("there is room");
        assert_eq!(refused(admission.enter(one)), Some(Limit::ConnectionsPerAddress));
        let over_http2 = first.of_stream(Version::HTTP_2, first.client());
        assert_eq!(over_http2.err().map(|refusal| refusal.code), Some(ErrorCode::RateLimited));
        assert!(first.of_stream(Version::HTTP_11, first.client()).is_ok());
        let third = admission.enter(other).expect("there is room");
        assert_eq!(refused(admission.enter(other)), Some(Limit::Connections));
        drop((first, third));
        assert!(admission.enter(one).is_ok());
    }

    #[test]
    fn new_ones_of_an_address_may_not_come_too_fast_but_here() {
        let limits = LimitsConfig { connection_rate: "1/h".parse().expect("a rate"), ..LimitsConfig::default() };
        let admission = admission(limits);
        let enter = |text: &str| refused(admission.enter(text.parse().expect("an address")));
        assert_eq!([(); 3].map(|()| enter("192.0.2.1")), [None, None, Some(Limit::ConnectionRate)]);
        assert_eq!([(); 3].map(|()| enter("192.0.2.2")), [None, None, Some(Limit::ConnectionRate)]);
        assert_eq!([(); 3].map(|()| enter("127.0.0.1")), [None; 3]);
        assert_eq!(admission.limits.refused().counts().map(|(_, times)| times).sum::<u64>(), 2);
    }

    #[test]
    fn who_comes_by_a_proxy_has_a_place_of_his_own() {
        let limits = LimitsConfig { connections: 4, connections_per_address: 1, ..LimitsConfig::default() };
        let admission = admission(limits);
        let proxy = IpAddr::from([10, 0, 0, 1]);
        let sockets = [(); 4].map(|()| admission.enter(proxy).expect("a proxy is not counted as an address"));
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let [one, other] = [one, other].map(|address| admission.limits.client(address));
        let first = sockets[0].of_stream(Version::HTTP_11, one).expect("the first of this address");
        assert!(sockets[1].of_stream(Version::HTTP_11, one).is_err());
        assert!(sockets[2].of_stream(Version::HTTP_11, other).is_ok());
        drop(sockets);
        assert_eq!(refused(admission.enter(IpAddr::from([192, 0, 2, 1]))), Some(Limit::ConnectionsPerAddress));
        drop(first);
        assert!(admission.enter(IpAddr::from([192, 0, 2, 1])).is_ok());
    }
}
