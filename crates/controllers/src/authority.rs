//! The cluster's authority: makes certificates of requests that a controller has judged.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{KeyPair, SigningKey};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, Pem, X509Certificate};
use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_INTEGER, TAG_UTCTIME};
use yasna::{DERWriter, Tag};

/// How long before its making a certificate is valid, as clocks differ, and how long one is at least for that to count
/// (upstream's numbers).
const BACKDATE: i64 = 5 * 60;
const SHORT: i64 = 8 * 3600;

const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];

/// Signs certificates.
pub struct Authority {
    key: KeyPair,
    /// Its name, as its certificate has it.
    name: Vec<u8>,
    /// How it signs, as its certificate says.
    algorithm: Vec<u8>,
    /// The id of its key, if its certificate has one.
    key_id: Option<Vec<u8>>,
    /// Until when it is valid itself, in seconds since 1970.
    until: i64,
}

impl Authority {
    /// An authority by its certificate, which it has signed itself, and its key, in PEM.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn new(certificate: &str, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("use the key of the cluster's authority")?;
        let pem = Pem::iter_from_buffer(certificate.as_bytes()).next().context("the authority has no certificate")?;
        let der = pem.context("read the authority's certificate")?.contents;
        let (_, parsed) = X509Certificate::from_der(&der).context("read the authority's certificate")?;
        let key_id = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let algorithm = yasna::parse_der(&der, |reader| {
            reader.read_sequence(|reader| {
                reader.next().read_der()?;
                let algorithm = reader.next().read_der()?;
                reader.next().read_der()?;
                Ok(algorithm)
            })
        });
        let algorithm = algorithm.context("read how the authority signs")?;
        let (name, until) = (parsed.subject().as_raw().to_vec(), parsed.validity().not_after.timestamp());
        Ok(Self { key, name, algorithm, key_id, until })
    }

    /// The certificate that a request of the API asks for, in PEM, valid for so many seconds. The subject and its key stay
    /// as they were written. `serial` tells it from all others.
    ///
    /// # Errors
    /// When the request cannot be read, or asks for a usage that no signer of the cluster gives.
    pub fn issue(&self, request: &Value, seconds: i64, serial: u128, now: Timestamp) -> Result<String> {
        let text = STANDARD.decode(request["spec"]["request"].as_str().unwrap_or_default());
        let text = text.context("decode the request")?;
        let pem = Pem::iter_from_buffer(&text).next().context("there is no request")?.context("read the request")?;
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).context("read the request")?;
        let info = &parsed.certification_request_info;
        let usages = request["spec"]["usages"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let extensions = Extensions::of(usages, &parsed)?;
        let now = now.as_second();
        let end = now + seconds - if seconds < SHORT { 0 } else { BACKDATE };
        let validity = [date(now - BACKDATE)?, date(end.min(self.until))?];
        let body = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged(Tag::context(0), |writer| writer.write_i8(2));
                // Positive, and of sixteen bytes whatever the number is.
                let serial = serial >> 2 | 1 << 126;
                let bytes = serial.to_be_bytes();
                writer.next().write_tagged_implicit(TAG_INTEGER, |writer| writer.write_bytes(&bytes));
                writer.next().write_der(&self.algorithm);
                writer.next().write_der(&self.name);
                writer.next().write_sequence(|writer| {
                    validity.iter().for_each(|(tag, text)| {
                        writer.next().write_tagged_implicit(*tag, |writer| writer.write_bytes(text.as_bytes()));
                    });
                });
                writer.next().write_der(info.subject.as_raw());
                writer.next().write_der(info.subject_pki.raw);
                writer.next().write_tagged(Tag::context(3), |writer| extensions.write(writer, self.key_id.as_deref()));
            });
        });
        let signature = self.key.sign(&body).context("sign the certificate")?;
        let certificate = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                writer.next().write_der(&self.algorithm);
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(in_pem(&certificate))
    }
}

fn in_pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// A moment as certificates have it: with two digits for the year up to 2049.
fn date(seconds: i64) -> Result<(Tag, String)> {
    let moment = Timestamp::from_second(seconds).context("a date of a certificate")?.to_zoned(TimeZone::UTC);
    Ok(if moment.year() < 2050 {
        (TAG_UTCTIME, moment.strftime("%y%m%d%H%M%SZ").to_string())
    } else {
        (TAG_GENERALIZEDTIME, moment.strftime("%Y%m%d%H%M%SZ").to_string())
    })
}

/// What a certificate says beside whose it is.
struct Extensions {
    /// The bits of the key usage, the first one highest.
    usage: u8,
    purposes: Vec<&'static [u64]>,
    /// Alternative names: the number of their kind, and what they are.
    names: Vec<(u64, Vec<u8>)>,
}

impl Extensions {
    fn of<'a>(usages: impl Iterator<Item = &'a str>, request: &X509CertificationRequest<'_>) -> Result<Self> {
        let mut extensions = Self { usage: 0, purposes: Vec::new(), names: Vec::new() };
        for usage in usages {
            match usage {
                "digital signature" => extensions.usage |= 0x80,
                "key encipherment" => extensions.usage |= 0x20,
                "client auth" => extensions.purposes.push(CLIENT_AUTH),
                "server auth" => extensions.purposes.push(SERVER_AUTH),
                other => bail!("no signer of the cluster gives certificates for {other:?}"),
            }
        }
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            extensions.names.extend(names.general_names.iter().filter_map(|name| match name {
                GeneralName::RFC822Name(mail) => Some((1, mail.as_bytes().to_vec())),
                GeneralName::DNSName(name) => Some((2, name.as_bytes().to_vec())),
                GeneralName::URI(uri) => Some((6, uri.as_bytes().to_vec())),
                GeneralName::IPAddress(address) => Some((7, address.to_vec())),
                _ => None,
            }));
        }
        Ok(extensions)
    }

    fn write(&self, writer: DERWriter<'_>, key_id: Option<&[u8]>) {
        writer.write_sequence(|writer| {
            if self.usage != 0 {
                // As long as its last bit that is set.
                let bits = 8 - self.usage.trailing_zeros() as usize;
                extension(writer.next(), KEY_USAGE, true, |writer| writer.write_bitvec_bytes(&[self.usage], bits));
            }
            if !self.purposes.is_empty() {
                extension(writer.next(), EXTENDED_KEY_USAGE, false, |writer| {
                    writer.write_sequence(|writer| {
                        self.purposes.iter().for_each(|id| writer.next().write_oid(&ObjectIdentifier::from_slice(id)));
                    });
                });
            }
            extension(writer.next(), BASIC_CONSTRAINTS, true, |writer| writer.write_sequence(|_| {}));
            if let Some(id) = key_id {
                extension(writer.next(), AUTHORITY_KEY, false, |writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(id));
                    });
                });
            }
            if !self.names.is_empty() {
                extension(writer.next(), ALTERNATIVE_NAMES, false, |writer| {
                    writer.write_sequence(|writer| {
                        for (kind, name) in &self.names {
                            let tag = Tag::context(*kind);
                            writer.next().write_tagged_implicit(tag, |writer| writer.write_bytes(name));
                        }
                    });
                });
            }
        });
    }
}

fn extension(writer: DERWriter<'_>, id: &[u64], critical: bool, value: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(id));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&yasna::construct_der(value));
    });
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa};
    use serde_json::json;

    use super::*;

    fn authority() -> (Authority, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        (Authority::new(&pem, &key.serialize_pem()).expect("an authority"), pem)
    }

    fn contents(pem: &str) -> Vec<u8> {
        Pem::iter_from_buffer(pem.as_bytes()).next().expect("a block").expect("PEM").contents
    }

    #[test]
    fn a_certificate_says_what_was_asked_for_and_its_authority_has_signed_it() {
        let (authority, own) = authority();
        let mut params = CertificateParams::new(vec!["a.example".to_owned(), "10.0.0.1".to_owned()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, "ann");
        params.distinguished_name.push(DnType::OrganizationName, "cooks");
        let asked = params.serialize_request(&KeyPair::generate().expect("a key")).expect("a request");
        let request = json!({"spec": {
            "request": STANDARD.encode(asked.pem().expect("PEM")),
            "usages": ["client auth", "digital signature", "key encipherment"],
        }});
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let issue = |seconds| authority.issue(&request, seconds, u128::MAX, now).expect("a certificate");
        let (der, own) = (contents(&issue(86_400)), contents(&own));
        let (rest, certificate) = X509Certificate::from_der(&der).expect("parses");
        let (_, own) = X509Certificate::from_der(&own).expect("parses");
        assert!(rest.is_empty());
        certificate.verify_signature(Some(own.public_key())).expect("signed by the authority");
        assert_eq!(certificate.subject().to_string(), "CN=ann, O=cooks");
        assert_eq!(certificate.issuer(), own.subject());
        let validity = certificate.validity();
        let times = (validity.not_before.timestamp(), validity.not_after.timestamp());
        assert_eq!(times, (now.as_second() - BACKDATE, now.as_second() + 86_400 - BACKDATE));
        let usage = certificate.key_usage().expect("parses").expect("is there").value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let purposes = certificate.extended_key_usage().expect("parses").expect("is there").value;
        assert!(purposes.client_auth && !purposes.server_auth && !certificate.is_ca());
        let names = certificate.subject_alternative_name().expect("parses").expect("is there").value;
        assert_eq!(names.general_names, [GeneralName::DNSName("a.example"), GeneralName::IPAddress(&[10, 0, 0, 1])]);
        let short = contents(&issue(600));
        let (_, short) = X509Certificate::from_der(&short).expect("parses");
        assert_eq!(short.validity().not_after.timestamp(), now.as_second() + 600);
    }

    #[test]
    fn all_organizations_of_a_request_are_in_the_certificate() {
        let request = json!({"spec": {"request": include_str!("testing/two.csr").trim(), "usages": ["client auth"]}});
        let now: Timestamp = "2060-01-01T00:00:00Z".parse().expect("a time");
        let pem = authority().0.issue(&request, 600, 1, now).expect("a certificate");
        let der = contents(&pem);
        let (_, certificate) = X509Certificate::from_der(&der).expect("parses");
        assert_eq!(certificate.subject().to_string(), "O=cooks, O=bakers, CN=ann");
        assert_eq!(certificate.validity().not_after.timestamp(), now.as_second() + 600);
        let other = json!({"spec": {"request": request["spec"]["request"], "usages": ["cert sign"]}});
        assert!(authority().0.issue(&other, 600, 1, now).is_err());
    }
}
