use super::names::{Name, Piece, pieces, quoted};
use super::*;

const HEAD: &str = "{\"portcullis_session\":1}\n";

fn step(number: u64, target: &str) -> String {
    let answer = Essentials { status: 200, code: None, decision: None };
    let (method, target, headers) =
        ("GET".to_owned(), target.to_owned(), vec![("accept".to_owned(), "${secret:3}".to_owned())]);
    let step = Step { step: number, method, target, headers, body: Body::Empty, inexact: false, answer };
    serde_json::to_string(&step).unwrap()
}

#[test]
fn what_is_no_session_is_refused_with_its_line() {
    for (text, wanted) in [
        (String::new(), "line 1: this is no recorded session"),
        ("[]".to_owned(), "line 1: this is no recorded session"),
        ("{\"portcullis_session\":2}".to_owned(), "line 1: a session of form 2, wanted 1"),
        (format!("{HEAD}{}\n{}", step(1, "/"), step(3, "/")), "line 3: step 3, wanted 2"),
        (
            format!("{HEAD}{}", step(1, "https://elsewhere.example/")),
            "line 2: the target is no path and no signed URL of an earlier step",
        ),
        (format!("{HEAD}{}", step(1, "/${1:/id}")), "line 2: a name of step 1, which does not come before"),
        (format!("{HEAD}{}", step(1, "/${9:/id}")), "line 2: a name of step 9, which does not come before"),
        (format!("{HEAD}{}", step(1, "/${env:HOME}")), "line 2: \"env:HOME\" is no name"),
        (format!("{HEAD}{}", step(1, "/${secret:99999999}")), "line 2: \"secret:99999999\" is no name"),
        (format!("{HEAD}{}", step(1, "/${secret:3")), "line 2: a name without an end"),
        (format!("{HEAD}{}", step(1, "/").replace("GET", "G T")), "line 2: the method is none"),
    ] {
        assert_eq!(Session::parse(&text).unwrap_err(), wanted, "{text}");
    }
    let unknown = format!("{HEAD}{}", step(1, "/").replace("\"inexact\"", "\"inexactly\""));
    assert!(Session::parse(&unknown).unwrap_err().starts_with("line 2: unknown field `inexactly`"));
    let error = Session::read(Path::new("/nowhere/at-all")).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at-all: "), "{error}");
    assert_eq!(
        Session::parse(&format!("{HEAD}{}\n\n{}\n", step(1, "/a"), step(2, "/${1:/id}"))).unwrap().steps().len(),
        2
    );
}

#[test]
fn a_text_is_itself_again_whatever_is_in_it() {
    for text in ["", "a", "${", "$${", "$$${x", "a${secret:1}b", "${3:/x}", "$", "}", "${${"] {
        let plain = if text.is_empty() { Vec::new() } else { vec![Piece::Text(text.to_owned())] };
        assert_eq!(pieces(&quoted(text)), Ok(plain), "{text}");
    }
    let name = Piece::Name(Name::Answer(3, "/upload/url".to_owned()));
    assert_eq!(pieces("Bearer ${3:/upload/url}"), Ok(vec![Piece::Text("Bearer ".to_owned()), name]));
}

#[test]
fn an_essential_is_told_in_one_line() {
    let answer = Essentials {
        status: 403,
        code: Some("insufficient_scope".to_owned()),
        decision: Some("deny x by authorizer".to_owned()),
    };
    assert_eq!(answer.to_string(), "403 insufficient_scope (deny x by authorizer)");
}
