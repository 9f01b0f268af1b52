use super::*;
use crate::bench::report::fixture;

#[test]
fn the_page_holds_the_picture_the_tables_and_the_data() {
    let report = fixture::report();
    let page = html(&report).unwrap();
    assert_eq!(page.matches("<svg ").count(), 1);
    assert_eq!(page.matches("<table>").count(), 4 * 2);
    assert_eq!(page.matches("<th scope=\"row\">").count(), 4 * 2 * 12);
    assert!(page.contains("class=\"good\">1.90 ("), "verdicts are seen");
    assert!(page.contains("<pre>reuseport-launch bench --spin-us 20 "));
    let (_, data) = page.split_once("id=\"report\">\n").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let written: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
    assert!(data == written);
}

#[test]
fn nothing_is_fetched_from_elsewhere() {
    let page = html(&fixture::report()).unwrap();
    let namespace = "xmlns=\"http://www.w3.org/2000/svg\"";
    let rest = page.replace(namespace, "");
    for reference in [
        "http:", "https:", "src=", "href=", "url(", "@import", "<link",
    ] {
        assert!(!rest.contains(reference), "{reference}");
    }
    assert_eq!(page.matches("<script").count(), 1, "only the data");
    assert!(page.contains("prefers-color-scheme: dark"));
}

#[test]
fn what_others_say_is_text() {
    let nasty = "</script><script>alert('1')</script>&<b x=\"";
    let mut report = fixture::report();
    report.work = nasty.to_owned();
    report.command.push(nasty.to_owned());
    report.notes.push(nasty.to_owned());
    report.host.cpu = nasty.to_owned();
    report.host.kernel = nasty.to_owned();
    report.program = nasty.to_owned();
    report.started = nasty.to_owned();
    report.modes[1].mode = nasty.to_owned();
    report.modes[2].failed = Some(nasty.to_owned());
    report.baseline = nasty.to_owned();
    let page = html(&report).unwrap();
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("</script").count(), 1);
    assert_eq!(page.matches("<b ").count(), 0);
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert"));
}

#[test]
fn every_element_is_closed() {
    let page = html(&fixture::disturbed()).unwrap();
    for name in [
        "html", "head", "body", "main", "style", "figure", "svg", "table", "thead", "tbody", "tr",
        "td", "th", "ul", "li", "p", "h1", "h2", "h3", "pre", "div", "script", "text",
    ] {
        let opened = page.matches(&format!("<{name}>")).count()
            + page.matches(&format!("<{name} ")).count()
            + page.matches(&format!("<{name}\n")).count();
        assert_eq!(
            opened,
            page.matches(&format!("</{name}>")).count(),
            "{name}"
        );
    }
}
