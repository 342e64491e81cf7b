//! Attributes, and what has them. With the feature `otlp` they are messages of OTLP too (opentelemetry-proto,
//! `common.proto` and `resource.proto`).

use alloc::string::String;
use alloc::vec::Vec;

use super::names::Attribute;

/// `common.v1.AnyValue`: what an attribute's value can be.
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "otlp", derive(prost::Oneof))]
#[cfg_attr(not(feature = "otlp"), derive(Debug))]
pub enum Value {
    /// Text.
    #[cfg_attr(feature = "otlp", prost(string, tag = "1"))]
    Text(String),
    /// Yes or no.
    #[cfg_attr(feature = "otlp", prost(bool, tag = "2"))]
    Bool(bool),
    /// A whole number.
    #[cfg_attr(feature = "otlp", prost(int64, tag = "3"))]
    Int(i64),
    /// A number.
    #[cfg_attr(feature = "otlp", prost(double, tag = "4"))]
    Double(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<u64> for Value {
    /// OTLP has signed numbers only; what is beyond them becomes the greatest.
    fn from(number: u64) -> Self {
        Value::Int(signed(number))
    }
}

/// `number`, or the greatest signed number if it is beyond that.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "otlp", derive(prost::Message))]
#[cfg_attr(not(feature = "otlp"), derive(Debug))]
pub struct AnyValue {
    #[cfg_attr(feature = "otlp", prost(oneof = "Value", tags = "1, 2, 3, 4"))]
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "otlp", derive(prost::Message))]
#[cfg_attr(not(feature = "otlp"), derive(Debug))]
pub struct KeyValue {
    #[cfg_attr(feature = "otlp", prost(string, tag = "1"))]
    pub key: String,
    #[cfg_attr(feature = "otlp", prost(message, optional, tag = "2"))]
    pub value: Option<AnyValue>,
}

impl KeyValue {
    pub fn new(attribute: Attribute, value: Value) -> Self {
        KeyValue {
            key: attribute.name().into(),
            value: Some(AnyValue { value: Some(value) }),
        }
    }
}

/// `resource.v1.Resource`: who sends. Made by [`super::resource::resource`].
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "otlp", derive(prost::Message))]
#[cfg_attr(not(feature = "otlp"), derive(Debug))]
pub struct Resource {
    #[cfg_attr(feature = "otlp", prost(message, repeated, tag = "1"))]
    pub(super) attributes: Vec<KeyValue>,
}
