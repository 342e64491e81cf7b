//! Who sends: the attributes that every request carries (semantic conventions, "Resource").

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::attributes::{AnyValue, KeyValue, Resource, Value};
use super::names;
use super::percent::hex;
use crate::confidential::{module::Module, platform::Platform};

/// What distinguishes this instar. Only text that the machine's owner wrote, and identifiers.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    /// `OTEL_SERVICE_NAME`; empty if not given.
    pub service_name: &'a str,
    /// The manifest's `name`.
    pub image_name: &'a str,
    /// The manifest's `version`.
    pub image_version: &'a str,
    /// The manifest's `revision`; may be empty.
    pub revision: &'a str,
    /// As [`uuid_v4`] made it.
    pub instance_id: [u8; 16],
    /// Counted from 1 at cold boot.
    pub generation: u64,
    /// `host_id` of the status.
    pub host_id: &'a str,
    /// The chain of what the machine has run, in hex digits; empty if it is not known here.
    pub measurement: &'a str,
    /// What the machine is.
    pub platform: &'a Platform,
    /// What is known of the TDX module.
    pub tdx_module: &'a Module,
    /// `OTEL_RESOURCE_ATTRIBUTES`, as [`super::config::resource_attributes`] decoded it.
    pub attributes: &'a [(String, String)],
}

/// The resource of all requests of an instar.
///
/// `service.name` is, in this order: `OTEL_SERVICE_NAME`, what `OTEL_RESOURCE_ATTRIBUTES` says, the image's name
/// (OpenTelemetry, "General SDK configuration"). Other attributes of the operator's are added, unless we set one of that
/// name: what identifies the machine is measured, not claimed.
pub fn resource(identity: &Identity) -> Resource {
    let claimed = identity
        .attributes
        .iter()
        .find(|(name, _)| name == names::SERVICE_NAME.name());
    let service_name = match (identity.service_name, claimed) {
        ("", Some((_, claimed))) if !claimed.is_empty() => claimed,
        ("", _) => identity.image_name,
        (given, _) => given,
    };
    let mut attributes = Vec::new();
    let mut text = |attribute, value: &str| {
        if !value.is_empty() {
            attributes.push(KeyValue::new(attribute, value.into()));
        }
    };
    text(names::SERVICE_NAME, service_name);
    text(names::SERVICE_VERSION, identity.image_version);
    text(names::SERVICE_INSTANCE_ID, &uuid_text(&identity.instance_id));
    text(names::HOST_ID, identity.host_id);
    text(names::OS_TYPE, "instar");
    text(names::TELEMETRY_SDK_NAME, "instar");
    text(names::TELEMETRY_SDK_LANGUAGE, "rust");
    text(names::TELEMETRY_SDK_VERSION, env!("CARGO_PKG_VERSION"));
    text(names::IMAGE_NAME, identity.image_name);
    text(names::VCS_REVISION, identity.revision);
    text(names::MEASUREMENT, identity.measurement);
    attributes.push(KeyValue::new(names::GENERATION, identity.generation.into()));
    attributes.extend(of_platform(identity.platform, identity.tdx_module));
    for (name, value) in identity.attributes {
        if attributes.iter().all(|ours| ours.key != *name) {
            let value = Some(AnyValue {
                value: Some(Value::Text(value.clone())),
            });
            attributes.push(KeyValue {
                key: name.clone(),
                value,
            });
        }
    }
    Resource { attributes }
}

/// Puts the chain of what the machine has run in the place of the one that was there: an image that gave the machine back
/// has run too.
pub fn set_measurement(resource: &mut Resource, chain: &str) {
    let name = names::MEASUREMENT.name();
    resource.attributes.retain(|attribute| attribute.key != name);
    resource
        .attributes
        .push(KeyValue::new(names::MEASUREMENT, chain.into()));
}

/// What the machine is, as far as it is known: a guest has no keys to tell of.
fn of_platform(platform: &Platform, module: &Module) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    let mut tell = |name, value: Value| attributes.push(KeyValue::new(name, value));
    tell(names::PLATFORM_ROLE, platform.role.name().into());
    tell(
        names::PARTIAL_WRITE_ERRATUM,
        Value::Bool(platform.partial_write_erratum),
    );
    if let Some(host) = platform.host() {
        tell(names::SME, host.sme.name().into());
        if let Some(tdx) = host.tdx {
            tell(names::MKTME_KEYIDS, u64::from(tdx.mktme_keyids).into());
            tell(names::TDX_KEYIDS, u64::from(tdx.tdx_keyids).into());
            if let Some(first) = tdx.first_tdx_keyid() {
                tell(names::TDX_FIRST_KEYID, u64::from(first).into());
            }
            if tdx.is_enabled() {
                let version = match (module.present, module.version) {
                    (false, _) => "none".into(),
                    (true, None) => "unknown".into(),
                    (true, Some(version)) => Value::Text(version.to_string()),
                };
                tell(names::TDX_MODULE, version);
            }
        }
    }
    attributes
}

/// A random UUID: `random` with version 4 and the variant set (RFC 9562, section 5.4).
pub fn uuid_v4(random: [u8; 16]) -> [u8; 16] {
    let mut uuid = random;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

/// A UUID as text: 36 lower-case characters (RFC 9562, section 4).
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let digits = hex(uuid);
    [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ]
    .join("-")
}

#[cfg(all(test, feature = "otlp"))]
mod tests {
    use super::*;
    use crate::confidential::module::Version;
    use crate::confidential::platform::{Host, Role, Sme, TdxHost, Vendor};
    use opentelemetry_proto::tonic::resource::v1::Resource as Official;
    use prost::Message;

    const HOST: Platform = Platform {
        vendor: Vendor::Intel,
        hypervisor: false,
        role: Role::Host(Host {
            tdx: Some(TdxHost {
                mktme_keyids: 16,
                tdx_keyids: 32,
            }),
            sme: Sme::Absent,
        }),
        movdir64b: true,
        wbnoinvd: true,
        partial_write_erratum: true,
    };

    static NO_MODULE: Module = Module {
        present: false,
        version: None,
        why: String::new(),
    };

    fn identity<'a>(attributes: &'a [(String, String)]) -> Identity<'a> {
        Identity {
            service_name: "",
            image_name: "hello",
            image_version: "1.1.0",
            revision: "3f2c1ab",
            instance_id: uuid_v4([0xff; 16]),
            generation: 2,
            host_id: "52:54:00:12:34:56",
            measurement: "a5a5",
            platform: &HOST,
            tdx_module: &NO_MODULE,
            attributes,
        }
    }

    fn pairs(identity: &Identity) -> Vec<(String, String)> {
        use opentelemetry_proto::tonic::common::v1::any_value::Value;
        let official =
            Official::decode(&*resource(identity).encode_to_vec()).expect("official types decode it");
        let text = |value: Value| match value {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            Value::BoolValue(truth) => truth.to_string(),
            other => panic!("{other:?}"),
        };
        official
            .attributes
            .into_iter()
            .map(|pair| {
                (
                    pair.key,
                    text(pair.value.and_then(|any| any.value).expect("a value")),
                )
            })
            .collect()
    }

    fn get(pairs: &[(String, String)], name: &str) -> String {
        let mut found = pairs.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.clone()).unwrap_or_default();
        assert!(found.next().is_none(), "{name} twice");
        value
    }

    #[test]
    fn tells_who_sends() {
        let pairs = pairs(&identity(&[]));
        assert_eq!(get(&pairs, "service.name"), "hello");
        assert_eq!(get(&pairs, "service.version"), "1.1.0");
        assert_eq!(
            get(&pairs, "service.instance.id"),
            "ffffffff-ffff-4fff-bfff-ffffffffffff"
        );
        assert_eq!(get(&pairs, "instar.generation"), "2");
        assert_eq!(get(&pairs, "vcs.ref.head.revision"), "3f2c1ab");
        assert_eq!(get(&pairs, "instar.measurement"), "a5a5");
    }

    #[test]
    fn the_chain_is_replaced_and_not_added() {
        let mut resource = resource(&identity(&[]));
        let before = resource.attributes.len();
        set_measurement(&mut resource, "5a5a");
        let told = resource
            .attributes
            .iter()
            .filter(|it| it.key == "instar.measurement");
        let expected = KeyValue::new(names::MEASUREMENT, "5a5a".into());
        assert_eq!(told.collect::<Vec<_>>(), [&expected]);
        assert_eq!(resource.attributes.len(), before);
    }

    #[test]
    fn tells_what_the_machine_is() {
        let mut identity = identity(&[]);
        let names = [
            "instar.platform.role",
            "instar.platform.partial_write_erratum",
            "instar.sme",
            "instar.mktme.keyids",
            "instar.tdx.keyids",
            "instar.tdx.first_keyid",
            "instar.tdx.module",
        ];
        let told = |identity: &Identity| names.map(|name| get(&pairs(identity), name));
        assert_eq!(
            told(&identity),
            ["host", "true", "absent", "16", "32", "17", "none"]
        );
        let module = |version| Module {
            present: true,
            version,
            why: String::new(),
        };
        let version = Version {
            major: 1,
            minor: 5,
            update: 6,
            build: 744,
        };
        for (module, told_of) in [
            (module(None), "unknown"),
            (module(Some(version)), "1.5.06 build 744"),
        ] {
            let mut identity = identity.clone();
            identity.tdx_module = &module;
            assert_eq!(told(&identity)[6], told_of);
        }
        let guest = Platform {
            role: Role::TdxGuest,
            ..HOST
        };
        identity.platform = &guest;
        assert_eq!(told(&identity), ["tdx-guest", "true", "", "", "", "", ""]);
        let forged = [("instar.platform.role".to_string(), "host".to_string())];
        identity.attributes = &forged;
        assert_eq!(get(&pairs(&identity), "instar.platform.role"), "tdx-guest");
    }

    #[test]
    fn the_operator_names_the_service_but_not_the_machine() {
        let own = |name: &str, value: &str| (name.to_string(), value.to_string());
        let attributes = [
            own("service.name", "shop"),
            own("deployment.environment.name", "test"),
            own("host.id", "forged"),
        ];
        let mut identity = identity(&attributes);
        let pairs_claimed = pairs(&identity);
        assert_eq!(get(&pairs_claimed, "service.name"), "shop");
        assert_eq!(get(&pairs_claimed, "deployment.environment.name"), "test");
        assert_eq!(get(&pairs_claimed, "host.id"), "52:54:00:12:34:56");
        identity.service_name = "till";
        assert_eq!(get(&pairs(&identity), "service.name"), "till");
    }
}
