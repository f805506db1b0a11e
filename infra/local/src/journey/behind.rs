//! An application that was there before the gate, and knows nothing of tokens.

use std::io;

use bytes::Bytes;

use super::Journey;
use crate::application::Application;

impl Journey<'_> {
    /// Goes to the application through the gate, and everything that somebody could try to be another there.
    pub(super) async fn behind(&mut self) -> io::Result<()> {
        let keys = self.api.call("GET", "/.well-known/jwks.json", None, None).await?.json();
        let application = Application::start(self.stack, Some(&keys)).await?;
        let (client, reader) = (self.client("acme-legacy")?, self.client("acme-reader")?);
        let (token, narrow) = (self.api.token(client, None).await?, self.api.token(reader, None).await?);
        let bearer = format!("Bearer {token}");
        let echo = format!("{}/app/echo", self.stack.places.gateway);
        let answer = self.api.send("GET", &echo, &[("authorization", bearer.as_str())], Bytes::new()).await?;
        self.report.row("an application that nobody changed answers behind the gate", "200", answer.outcome());
        let seen = answer.json();
        let of = |name: &str| seen["headers"][name].as_str().unwrap_or_default().to_owned();
        self.report.row("and is told who asks", "acme-legacy acme app -", {
            ["x-portcullis-subject", "x-portcullis-tenant", "x-portcullis-scope", "x-portcullis-device"]
                .map(of)
                .join(" ")
        });
        self.report.check("with the token that was verified", of("authorization") == bearer, "the token", "another");
        let note = self.api.call("POST", "/app/notes", Some(&token), Some(&"hello".into())).await?;
        self.report.row("what it does is done in that name", "201 acme-legacy", {
            format!("{} {}", note.status, note.json()["who"].as_str().unwrap_or_default())
        });
        for (what, header) in [("X-Forwarded-User", "x-forwarded-user"), ("Remote-User", "remote-user")] {
            let headers = [("authorization", bearer.as_str()), (header, "admin")];
            let answer = self.api.send("GET", &echo, &headers, Bytes::new()).await?;
            let arrived = answer.json()["headers"][header].as_str().unwrap_or_default().to_owned();
            self.report.row(&format!("a {what} of the client's own arrives empty"), "200 ", {
                format!("{} {arrived}", answer.status)
            });
        }
        for header in ["x-portcullis-subject", "x_portcullis_subject", "x-portcullis-role", "x_forwarded_user"] {
            let headers = [("authorization", bearer.as_str()), (header, "admin")];
            let answer = self.api.send("GET", &echo, &headers, Bytes::new()).await?;
            self.report.row(&format!("{header} of the client's own"), "403 forbidden", answer.outcome());
        }
        for (what, path, token, refused) in [
            ("without a token", "/app/echo", None, "401 unauthorized"),
            ("with a token for something else", "/app/echo", Some(&narrow), "403 forbidden"),
            ("a path in disguise", "/app/%2e%2e/files", Some(&token), "403 forbidden"),
            ("a path with an empty segment", "/app//echo", Some(&token), "403 forbidden"),
        ] {
            let answer = self.api.call("GET", path, token.map(String::as_str), None).await?;
            self.report.row(what, refused, answer.outcome());
        }
        let around = application.ask("/echo", &[("x-portcullis-subject", "admin")]).await?;
        self.report.row("around the gate, with forged headers", "401", around.status().as_str());
        let headers = [("authorization", bearer.as_str()), ("x-portcullis-subject", "admin")];
        let around = application.ask("/echo", &headers).await?;
        self.report.row("around the gate, with a token of somebody else", "401", around.status().as_str());
        Ok(())
    }
}
