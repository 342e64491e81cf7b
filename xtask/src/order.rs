//! Orders: signed requests to change something (docs/interfaces.md, "The order").

use crate::image::{archive, toml_string};
use crate::keys;
use anyhow::Result;
use minisign::SecretKey;

/// The members' names, in the order in which they stand in the archive.
pub const MEMBERS: [&str; 2] = ["order.toml", "order.toml.minisig"];

/// What is asked of which machine, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// `replace`.
    pub action: String,
    /// `host_id` of the status.
    pub host: String,
    /// `generation` of the status.
    pub generation: u64,
    /// `nonce` of the status.
    pub nonce: String,
    /// SHA-256 of the staged ELF.
    pub image: String,
}

impl Order {
    /// As TOML, in a fixed order.
    pub fn to_toml(&self) -> String {
        format!(
            "format = 1\naction = {}\nhost = {}\ngeneration = {}\nnonce = {}\nimage = {}\n",
            toml_string(&self.action),
            toml_string(&self.host),
            self.generation,
            toml_string(&self.nonce),
            toml_string(&self.image),
        )
    }

    /// Signed by the operator's `key`, as it is sent.
    ///
    /// # Errors
    /// If the key is damaged.
    pub fn pack(&self, key: &SecretKey) -> Result<Vec<u8>> {
        let text = self.to_toml();
        let signature = keys::sign(
            key,
            text.as_bytes(),
            &format!("{} generation {}", self.action, self.generation),
        )?;
        archive(&[(MEMBERS[0], text.as_bytes()), (MEMBERS[1], signature.as_bytes())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_documented_text() {
        let order = Order {
            action: "replace".to_owned(),
            host: "52:54:00:12:34:56".to_owned(),
            generation: 1,
            nonce: "0".repeat(32),
            image: "a".repeat(64),
        };
        assert_eq!(
            order.to_toml(),
            format!(
                "format = 1\naction = \"replace\"\nhost = \"52:54:00:12:34:56\"\ngeneration = 1\nnonce = \"{}\"\nimage = \"{}\"\n",
                "0".repeat(32),
                "a".repeat(64)
            )
        );
        let key = minisign::KeyPair::generate_unencrypted_keypair()
            .expect("a key pair")
            .sk;
        let packed = order.pack(&key).expect("packed");
        let names: Vec<_> = tar::Archive::new(packed.as_slice())
            .entries()
            .expect("entries")
            .map(|e| e.expect("an entry").path_bytes().into_owned())
            .collect();
        assert_eq!(names, MEMBERS.map(|m| m.as_bytes().to_vec()));
    }
}
