//! A question and the zone → the reply, or what has to be asked elsewhere. Pure.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::zone::{Answer, Data, Kind, Zone};

/// Seconds for which an answer about the cluster may be kept (upstream's value): endpoints come and go.
const LIFETIME: u32 = 5;
/// The longest answer over UDP for who does not say otherwise (RFC 1035), and for who does (the size that no network splits).
const PLAIN_SIZE: u16 = 512;
const LARGEST_SIZE: u16 = 1232;
/// How many aliases in a row are followed.
const ALIASES: usize = 8;

/// What to do about a question.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    /// Answer with this.
    Answer(Message),
    /// Hand the question on as it is.
    Forward,
    /// Answer with this, and with what others know of this name.
    Continue(Message, Name),
}

/// What is asked for, in the zone's words.
fn kind_of(kind: RecordType) -> Kind {
    match kind {
        RecordType::A => Kind::Address,
        RecordType::SRV => Kind::Service,
        RecordType::PTR => Kind::Name,
        RecordType::TXT => Kind::Text,
        RecordType::CNAME => Kind::Alias,
        RecordType::ANY => Kind::Any,
        _ => Kind::Other,
    }
}

fn text_of(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_lowercase()
}

fn name_of(text: &str) -> Name {
    // What the zone holds was valid where it came from; a name that is none is better than no answer.
    let mut name = Name::from_ascii(text).unwrap_or_else(|_| Name::root());
    name.set_fqdn(true);
    name
}

/// A reply without records to this question.
pub(crate) fn empty(request: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(LARGEST_SIZE);
        reply.set_edns(edns);
    }
    reply
}

/// The reply to a request.
pub(crate) fn reply(zone: &Zone, domain: &str, request: &Message) -> Reply {
    if request.metadata.op_code != OpCode::Query {
        return Reply::Answer(empty(request, ResponseCode::NotImp));
    }
    let [query] = &request.queries[..] else {
        return Reply::Answer(empty(request, ResponseCode::FormErr));
    };
    if query.query_class != DNSClass::IN {
        return Reply::Forward;
    }
    let mut reply = empty(request, ResponseCode::NoError);
    reply.metadata.authoritative = true;
    let mut owner = query.name.clone();
    let mut asked = text_of(&owner);
    for _ in 0..ALIASES {
        match zone.answer(&asked, kind_of(query.query_type)) {
            Answer::Found(all) => {
                let services = all.iter().filter_map(|data| match data {
                    Data::Service { target, .. } => Some(target.clone()),
                    _ => None,
                });
                // Who asks for a service wants its address next.
                for target in services.collect::<std::collections::BTreeSet<_>>() {
                    if let Answer::Found(addresses) = zone.answer(&target, Kind::Address) {
                        reply.add_additionals(addresses.iter().map(|data| record(&name_of(&target), data)));
                    }
                }
                reply.add_answers(all.iter().map(|data| record(&owner, data)));
                return Reply::Answer(reply);
            }
            Answer::Alias(target) => {
                reply.add_answer(record(&owner, &Data::Alias(target.clone())));
                owner = name_of(&target);
                asked = target;
            }
            Answer::Empty => {
                reply.add_authority(authority(domain));
                return Reply::Answer(reply);
            }
            Answer::NoSuchName => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.add_authority(authority(domain));
                return Reply::Answer(reply);
            }
            Answer::Elsewhere if reply.answers.is_empty() => return Reply::Forward,
            Answer::Elsewhere => return Reply::Continue(reply, owner),
        }
    }
    Reply::Answer(empty(request, ResponseCode::ServFail))
}

fn record(owner: &Name, data: &Data) -> Record {
    let data = match data {
        Data::Address(address) => RData::A(A(*address)),
        Data::Service { port, target } => RData::SRV(SRV::new(0, 100, *port, name_of(target))),
        Data::Alias(target) => RData::CNAME(CNAME(name_of(target))),
        Data::Name(name) => RData::PTR(PTR(name_of(name))),
        Data::Text(text) => RData::TXT(TXT::new(vec![(*text).to_owned()])),
    };
    Record::from_rdata(owner.clone(), LIFETIME, data)
}

/// Who says that there is nothing, and for how long that holds.
fn authority(domain: &str) -> Record {
    let (primary, mail) = (name_of(&format!("ns.dns.{domain}")), name_of(&format!("hostmaster.{domain}")));
    let soa = SOA::new(primary, mail, 1, 7200, 1800, 86_400, LIFETIME);
    Record::from_rdata(name_of(domain), LIFETIME, RData::SOA(soa))
}

/// The question about another name, as others are to be asked it.
pub(crate) fn question(request: &Message, name: &Name) -> Message {
    let kind = request.queries.first().map_or(RecordType::A, |query| query.query_type);
    let mut message = Message::new(request.metadata.id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(LARGEST_SIZE);
    message.set_edns(edns);
    message
}

/// The bytes of a reply; over UDP one that is too long for the client is cut and says so.
pub(crate) fn encode(request: &Message, reply: &Message, udp: bool) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    let room = request.edns.as_ref().map_or(PLAIN_SIZE, |edns| edns.max_payload().clamp(PLAIN_SIZE, LARGEST_SIZE));
    if !udp || bytes.len() <= usize::from(room) {
        return Some(bytes);
    }
    // What is merely helpful goes first.
    let mut shorter = reply.clone();
    shorter.additionals.clear();
    let bytes = shorter.to_vec().ok()?;
    if bytes.len() <= usize::from(room) { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn zone(endpoints: u8) -> Zone {
        let service = json!({"metadata": {"name": "all", "namespace": "d"}, "spec": {"clusterIP": "None"}});
        let away = json!({"metadata": {"name": "away", "namespace": "d"},
            "spec": {"type": "ExternalName", "externalName": "example.com"}});
        let list: Vec<_> = (1..=endpoints).map(|n| json!({"addresses": [format!("10.42.0.{n}")]})).collect();
        let slice = json!({"metadata": {"name": "x", "namespace": "d", "labels": {"kubernetes.io/service-name": "all"}},
            "addressType": "IPv4", "ports": [], "endpoints": list});
        let services = [service, away].map(|object| kinds::typed::service_from_value(object).expect("a service"));
        let slice = kinds::typed::endpoint_slice_from_value(slice).expect("a slice");
        Zone::new("cluster.local", &[], &services, [&slice])
    }

    fn ask(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name_of(name), kind));
        message
    }

    fn answer(zone: &Zone, request: &Message) -> Message {
        match reply(zone, "cluster.local", request) {
            Reply::Answer(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_without_addresses_of_this_kind_is_no_missing_name() {
        let zone = zone(1);
        let six = answer(&zone, &ask("ALL.d.svc.cluster.local", RecordType::AAAA));
        assert_eq!(
            (six.metadata.response_code, six.answers.len(), six.authorities.len()),
            (ResponseCode::NoError, 0, 1)
        );
        let missing = answer(&zone, &ask("typo.d.svc.cluster.local", RecordType::A));
        assert_eq!((missing.metadata.response_code, missing.authorities.len()), (ResponseCode::NXDomain, 1));
        assert_eq!(reply(&zone, "cluster.local", &ask("example.com", RecordType::A)), Reply::Forward);
        let Reply::Continue(begun, rest) =
            reply(&zone, "cluster.local", &ask("away.d.svc.cluster.local", RecordType::A))
        else {
            panic!("an alias of elsewhere goes on there");
        };
        assert_eq!((begun.answers.len(), rest.to_ascii().as_str()), (1, "example.com."));
    }

    #[test]
    fn a_long_answer_over_udp_is_cut_and_says_so() {
        let zone = zone(60);
        let plain = ask("all.d.svc.cluster.local", RecordType::A);
        let whole = answer(&zone, &plain);
        assert_eq!(whole.answers.len(), 60);
        let cut = Message::from_vec(&encode(&plain, &whole, true).expect("bytes")).expect("a message");
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let over_tcp = Message::from_vec(&encode(&plain, &whole, false).expect("bytes")).expect("a message");
        assert_eq!((over_tcp.metadata.truncation, over_tcp.answers.len()), (false, 60));
        let mut roomy = plain.clone();
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        roomy.set_edns(edns);
        let fits = encode(&roomy, &answer(&zone, &roomy), true).expect("bytes");
        assert!(!Message::from_vec(&fits).expect("a message").metadata.truncation);
    }
}
