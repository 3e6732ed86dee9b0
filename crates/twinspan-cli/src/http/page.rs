//! The page: one static document, put together at compile time, and the policy that guards it.

use aws_lc_rs::digest;

/// The only style of the page, as the browser sees it between its tags.
const STYLE: &str = include_str!("page/style.css");

/// The script, once as the browser sees it between its tags and once inside the document.
macro_rules! script {
    () => {
        // The parts share one scope and come in this order.
        concat!(
            "'use strict';\n(() => {\n",
            include_str!("page/base.js"),
            include_str!("page/map.js"),
            include_str!("page/plots.js"),
            include_str!("page/sessions.js"),
            include_str!("page/conditions.js"),
            include_str!("page/feed.js"),
            "})();\n"
        )
    };
}

/// The only script of the page.
const SCRIPT: &str = script!();

/// The whole document.
pub(super) const DOCUMENT: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    include_str!("page/style.css"),
    "</style>\n</head>\n",
    include_str!("page/body.html"),
    "<script>",
    script!(),
    "</script>\n</body>\n</html>\n"
);

/// The page's content security policy: exactly its own script and style by their hashes, its own
/// server for data, nothing else from anywhere.
pub(super) fn policy() -> String {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        sha256_base64(SCRIPT),
        sha256_base64(STYLE),
    )
}

fn sha256_base64(text: &str) -> String {
    base64(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// Standard base64 with padding; the policy needs two words of it a run, not a dependency.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place > chunk.len() {
                text.push('=');
            } else {
                let letter = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
                text.push(char::from(letter));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_matches_the_published_vectors() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn sha256_of_nothing_is_the_known_one() {
        assert_eq!(sha256_base64(""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_document_holds_exactly_the_hashed_script_and_style() {
        assert!(DOCUMENT.contains(&format!("<style>{STYLE}</style>")));
        assert!(DOCUMENT.contains(&format!("<script>{SCRIPT}</script>")));
        assert_eq!(DOCUMENT.matches("<script").count(), 1);
        assert_eq!(DOCUMENT.matches("<style").count(), 1);
        // A carriage return would be normalised by the browser and break the hashes.
        assert!(!DOCUMENT.contains('\r'));
    }

    #[test]
    fn the_document_asks_no_other_host_for_anything() {
        for text in ["src=\"http", "href=\"http", "url(http", "@import", "innerHTML", "eval("] {
            assert!(!DOCUMENT.contains(text), "the page contains {text}");
        }
        // An attribute with style or a handler in it would be blocked by the policy.
        assert!(!DOCUMENT.contains(" style=") && !DOCUMENT.contains(" onclick="));
    }

    #[test]
    fn the_policy_allows_nothing_by_default() {
        let policy = policy();
        assert!(policy.starts_with("default-src 'none'; "));
        assert!(!policy.contains("unsafe"));
        assert!(policy.ends_with("frame-ancestors 'none'"));
    }
}
