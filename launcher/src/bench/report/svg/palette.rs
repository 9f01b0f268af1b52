//! Colours that can be told apart, by the colour-blind too, and seen on light and on dark.

use plotters::style::RGBColor;

/// How a mode is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) colour: RGBColor,
}

impl Style {
    /// The baseline is grey: the others are seen against it.
    pub(super) const BASELINE: Self = Self { colour: TEXT };
}

/// Text, axes and the baseline, where no CSS says otherwise.
pub(super) const TEXT: RGBColor = RGBColor(0x7a, 0x7a, 0x7a);

/// After Okabe and Ito, those that are too bright on white made darker.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x96, 0x6c),
    RGBColor(0xc4, 0x6a, 0x9c),
    RGBColor(0x9a, 0x7b, 0x00),
    RGBColor(0x2f, 0x93, 0xcf),
];

/// Lengths of dashes and gaps, in CSS pixels; the first is a solid line.
const DASHES: [&[u32]; 3] = [&[], &[7, 4], &[2, 3]];

/// The style of the mode `index`: when the colours are used up, they come again with other dashes.
///
/// plotters draws no dashes but as lines of their own. So the dash is told by a colour that is one step
/// off, which [`finished`] puts right.
pub(super) fn style(index: usize) -> Style {
    let RGBColor(red, green, blue) = COLOURS[index % COLOURS.len()];
    let dash = index / COLOURS.len() % DASHES.len();
    Style {
        colour: RGBColor(red, green, blue + dash as u8),
    }
}

/// The document with dashes.
pub(super) fn finished(mut document: String) -> String {
    for (index, dash) in DASHES.iter().enumerate().skip(1) {
        let lengths: Vec<String> = dash
            .iter()
            .map(|length| (length * super::canvas::FINE.unsigned_abs()).to_string())
            .collect();
        for RGBColor(red, green, blue) in COLOURS {
            let told = format!("{red:02X}{green:02X}{:02X}", blue + index as u8);
            let meant = format!("{red:02X}{green:02X}{blue:02X}");
            document = document
                .replace(
                    &format!("stroke=\"#{told}\""),
                    &format!(
                        "stroke=\"#{meant}\" stroke-dasharray=\"{}\"",
                        lengths.join(" ")
                    ),
                )
                .replace(&format!("\"#{told}\""), &format!("\"#{meant}\""));
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of WCAG 2.
    fn luminance(RGBColor(red, green, blue): RGBColor) -> f64 {
        let linear = |part: u8| match f64::from(part) / 255.0 {
            c if c <= 0.03928 => c / 12.92,
            c => ((c + 0.055) / 1.055).powf(2.4),
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    fn contrast(one: RGBColor, other: RGBColor) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn colours_are_seen_on_light_and_dark() {
        for colour in COLOURS.into_iter().chain([TEXT]) {
            for background in [RGBColor(255, 255, 255), RGBColor(0x16, 0x18, 0x1d)] {
                let found = contrast(colour, background);
                assert!(found >= 3.0, "{colour:?} on {background:?}: {found:.2}");
            }
        }
    }

    #[test]
    fn eighteen_modes_differ() {
        let drawn: std::collections::BTreeSet<String> = (0..18)
            .map(|index| {
                let RGBColor(red, green, blue) = style(index).colour;
                finished(format!(
                    "<line stroke=\"#{red:02X}{green:02X}{blue:02X}\"/>"
                ))
            })
            .collect();
        assert_eq!(drawn.len(), 18, "{drawn:#?}");
    }
}
