use super::*;

/// What fits is joined to its other parts so that the whole is of this many bytes.
fn filled(start: &str, end: &str, length: usize) -> String {
    format!("{start}{}{end}", "a".repeat(length - start.len() - end.len()))
}

fn all(fits: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
    for text in good {
        assert!(fits(text), "{text}");
    }
    for text in bad {
        assert!(!fits(text), "{text}");
    }
}

#[test]
fn an_arn_names_one_role_or_one_function() {
    let role = "arn:aws:iam::111122223333:role/";
    all(
        is_role_arn,
        &[
            &format!("{role}payments"),
            &format!("{role}service/a+=,.@_-/payments"),
            "arn:aws-cn:iam::111122223333:role/x",
            "arn:aws-us-gov:iam::111122223333:role/x",
            "arn:aws-eusc:iam::111122223333:role/x",
            &filled(role, "", 640),
        ],
        &[
            "",
            role,
            &format!("{role}/x"),
            &format!("{role}x/"),
            &format!("{role}a//b"),
            &format!("{role}a*"),
            &format!("{role}a b"),
            &filled(role, "", 641),
            "arn:aws:iam::111122223333:user/x",
            "arn:aws:iam::111122223333:rolex",
            "arn:aws:iam:eu-west-1:111122223333:role/x",
            "arn:aws:iam::11112222333:role/x",
            "arn:aws:iam::1111222233334:role/x",
            "arn:aws:iam::11112222333x:role/x",
            "arn:aws:sts::111122223333:role/x",
            "arn:amazon:iam::111122223333:role/x",
            "arm:aws:iam::111122223333:role/x",
            "arn:aws:iam::111122223333",
        ],
    );
    assert_eq!(account_of_role(&format!("{role}payments")), Some("111122223333"));
    let function = "arn:aws:lambda:eu-west-1:111122223333:function:";
    all(
        is_function_arn,
        &[&format!("{function}pay_Me-1"), &filled(function, "", function.len() + 64)],
        &[
            function,
            &filled(function, "", function.len() + 65),
            &format!("{function}pay:live"),
            &format!("{function}pay.me"),
            "arn:aws:lambda::111122223333:function:pay",
            "arn:aws:lambda:EU:111122223333:function:pay",
            "arn:aws:lambda:eu-west-1:111122223333:layer:pay",
            "arn:aws:iam:eu-west-1:111122223333:function:pay",
            "arn:aws:lambda:eu-west-1:11112222333a:function:pay",
        ],
    );
}

#[test]
fn names_of_aws_and_github_are_of_their_forms() {
    all(
        is_organization,
        &["o-abc1234567", &filled("o-", "", 34)],
        &["", "o-", "o-abc123456", &filled("o-", "", 35), "x-abc1234567", "o-ABC1234567", "o-abc-123456"],
    );
    all(is_region, &["eu-west-1", "a", &"a".repeat(32)], &["", &"a".repeat(33), "EU-west-1", "eu_west"]);
    all(is_number, &["1", "74", "10", &"1".repeat(20)], &["", "0", "074", "7a", "-1", &"1".repeat(21)]);
    all(
        is_reference,
        &["refs/heads/main", "refs/pull/1/merge", "refs/tags/v1@{x}", &filled("refs/heads/", "", 255)],
        &[
            "",
            "heads/main",
            "refs/heads/",
            "refs/heads/a b",
            "refs/heads/*",
            "refs/heads/a?",
            "refs/heads/[a]",
            "refs/heads/a~1",
            "refs/heads/a^",
            "refs/heads/a:b",
            "refs/heads/a\\b",
            "refs/heads/é",
            &filled("refs/heads/", "", 256),
        ],
    );
    all(
        is_environment,
        &["prod", "Prod EU", "é", &"a".repeat(255)],
        &["", " prod", "prod ", "a\nb", "pro*", "pro?", &"a".repeat(256)],
    );
    let file = "octo-org/octo-automation/.github/workflows/oidc.yml";
    let commit = "0123456789abcdefABCDEF0123456789abcdef01";
    all(
        is_workflow,
        &[
            &format!("{file}@refs/heads/main"),
            &format!("{file}@{commit}"),
            &filled("o/r/.github/workflows/", "@refs/heads/main", 512),
        ],
        &[
            file,
            &format!("{file}@"),
            &format!("{file}@main"),
            &format!("{file}@{}", &commit[1..]),
            &format!("{file}@{commit}0"),
            &format!("{file}@{}g", &commit[1..]),
            "octo-org/octo-automation/workflows/oidc.yml@refs/heads/main",
            "octo-org/*/.github/workflows/oidc.yml@refs/heads/main",
            "octo-org/a b/.github/workflows/oidc.yml@refs/heads/main",
            &filled("o/r/.github/workflows/", "@refs/heads/main", 513),
        ],
    );
}

#[test]
fn names_of_kubernetes_and_spiffe_are_of_their_forms() {
    all(is_label, &["a", "payments-1", &"a".repeat(63)], &["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64)]);
    let long =
        |last: usize| [&["a".repeat(63), "b".repeat(63), "c".repeat(63)].join("."), ".", &"d".repeat(last)].concat();
    all(is_subdomain, &["api", "a.b-c.d", &long(61)], &["", ".a", "a..b", "a.", "a.-b", &long(62)]);
    all(is_uid, &["14ee3fa4-a7e2-420f-9f9a-dbc4507c3798", "A", &"a".repeat(64)], &["", "a_b", &"a".repeat(65)]);
    all(
        is_spiffe_domain,
        &["prod.example", "a_b-c", "1", &"a".repeat(246)],
        &["", "Prod.example", "prod:1", "u@prod", "a/b", &"a".repeat(247)],
    );
    for (id, domain) in [
        ("spiffe://prod.example/ns/a", Some("spiffe://prod.example")),
        ("spiffe://prod.example/", Some("spiffe://prod.example")),
        ("spiffe://prod.example", Some("spiffe://prod.example")),
        ("spiffe:///a", None),
        ("spiffe://Prod.example/a", None),
        ("https://prod.example/a", None),
    ] {
        assert_eq!(domain_of(id), domain, "{id}");
    }
    all(
        is_spiffe_id,
        &[
            "spiffe://prod.example/a",
            "spiffe://prod.example/ns/A.b_c-d/...",
            &filled("spiffe://prod.example/", "", 2_048),
        ],
        &[
            "spiffe://prod.example",
            "spiffe://prod.example/",
            "spiffe://prod.example//a",
            "spiffe://prod.example/a/",
            "spiffe://prod.example/.",
            "spiffe://prod.example/a/../b",
            "spiffe://prod.example/a b",
            "spiffe://prod.example/a%20b",
            "spiffe:///a",
            "https://prod.example/a",
            &filled("spiffe://prod.example/", "", 2_049),
        ],
    );
}

/// How long what a platform signs may live, and how old it may be.
#[test]
fn each_platform_has_its_times() {
    let times = WORKLOADS.map(|kind| kind.terms().map(|terms| (terms.longest, terms.oldest)).unwrap());
    assert_eq!(times, [(300, 300), (21_600, 900), (3_607, 3_607), (3_600, i64::MAX)]);
}
