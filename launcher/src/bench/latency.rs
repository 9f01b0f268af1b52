//! Latencies on their way from the generator to the report: an HDR histogram as text.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer as _, V2DeflateSerializer},
};

use crate::failure::Failure;

/// Base64 of the histogram's V2 deflate form, as other HDR tools read it. (Nothing if it does not
/// have one: writing to memory fails only where there is none.)
pub(crate) fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    match V2DeflateSerializer::new().serialize(histogram, &mut bytes) {
        Ok(_) => STANDARD.encode(bytes),
        Err(_) => String::new(),
    }
}

/// The histogram of [`encode`]'s text.
///
/// # Errors
///
/// Text that is none of it.
pub(crate) fn decode(text: &str) -> Result<Histogram<u64>, Failure> {
    let bad = |why: &dyn std::fmt::Display| {
        Failure::new(
            "cannot read the latencies of a measurement",
            why,
            "measure again with the same version of reuseport-launch",
        )
    };
    let bytes = STANDARD.decode(text).map_err(|error| bad(&error))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for value in [1, 250_000, 250_000, 4_000_000, 59_000_000_000] {
            histogram.record(value).unwrap();
        }
        let decoded = decode(&encode(&histogram)).unwrap();
        assert_eq!(decoded, histogram);
        assert_eq!(
            decoded.value_at_quantile(0.5),
            histogram.value_at_quantile(0.5)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "no base64!", "AAAA", &STANDARD.encode([0; 400])] {
            let failure = decode(text).unwrap_err();
            assert!(
                failure.to_string().contains("cannot read the latencies"),
                "{text:?}"
            );
        }
    }
}
