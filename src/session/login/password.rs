//! Asking for a password, and finding out whether it is right: by the role's verifier or the users file, SCRAM or md5.
//!
//! Whoever has no password, or one that cannot be good, is asked all the same and refused as late as the others are.

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until};

use super::{FAILURE_DELAY, Failure, Login, Refusal, Source, Step, read_failed, refuse};
use crate::auth::scram::{self, Offer, ScramError, ScramServer};
use crate::auth::{Credential, Md5Hash, ScramVerifier, StoredPassword, random};
use crate::wire::message::{self, Problem};

/// PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`, in bytes; an md5 answer has 36.
const PASSWORD_LIMIT: usize = 1024;

/// What a client will be asked for.
struct Known {
    asked: Asked,
    /// Why no answer can be good.
    doubt: Option<&'static str>,
}

enum Asked {
    /// `credential`: what to show to nodes, where it is not the keys of this exchange.
    Scram {
        verifier: ScramVerifier,
        credential: Option<Credential>,
    },
    Md5(Md5Hash),
}

impl Login<'_> {
    pub(super) async fn ask_password(&mut self, user: &str) -> Step<Credential> {
        let known = self.look_up(user).await?;
        match known.asked {
            Asked::Md5(hash) => self.ask_md5(user, &hash, known.doubt).await,
            Asked::Scram { verifier, credential } => self.ask_scram(user, verifier, credential, known.doubt).await,
        }
    }

    /// What the client will be asked, and why its answer cannot be good, if it cannot.
    async fn look_up(&self, user: &str) -> Step<Known> {
        let mock = &self.context.mock;
        let made_up = |doubt| Known {
            asked: Asked::Scram { verifier: mock.verifier(user), credential: None },
            doubt: Some(doubt),
        };
        if let Some(entry) = self.context.users.get(user) {
            return Ok(match &entry.password {
                StoredPassword::Plain(password) if password.is_empty() => {
                    made_up("its password in the users file is empty")
                }
                StoredPassword::Plain(password) => {
                    let verifier = entry.verifier_of_plain(user, password, mock);
                    // The node's verifier has another salt, so the node gets the password rather than this one's keys.
                    let credential = Some(Credential::Password(password.clone()));
                    Known { asked: Asked::Scram { verifier, credential }, doubt: None }
                }
                StoredPassword::Scram(verifier) => {
                    Known { asked: Asked::Scram { verifier: verifier.clone(), credential: None }, doubt: None }
                }
                StoredPassword::Md5(hash) => Known { asked: Asked::Md5(hash.clone()), doubt: None },
            });
        }
        let (Source::Passthrough, Some(roles)) = (self.context.source, &self.context.roles) else {
            return Ok(made_up("it is not in the users file"));
        };
        let record = match roles.role(user).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(made_up("there is no such role")),
            Err(error) => {
                let problem = Problem::new("57P03", "cannot check the password: no primary answers at the moment");
                return Err(Failure::Refuse(Box::new(Refusal {
                    problem: problem.hint("Try again in a moment."),
                    reason: Some(format!("cannot look up role \"{user}\": {error}")),
                })));
            }
        };
        let doubt = record.valid_until_passed.then_some("its password has expired");
        let Some(verifier) = record.verifier.as_deref() else {
            return Ok(made_up("it has no password"));
        };
        Ok(match StoredPassword::parse(verifier) {
            StoredPassword::Scram(verifier) => Known { asked: Asked::Scram { verifier, credential: None }, doubt },
            StoredPassword::Md5(hash) => Known { asked: Asked::Md5(hash), doubt },
            StoredPassword::Plain(_) => made_up("its verifier is of a kind that is not known here"),
        })
    }

    async fn ask_md5(&mut self, user: &str, hash: &Md5Hash, doubt: Option<&'static str>) -> Step<Credential> {
        let salt: [u8; 4] = random();
        self.say(5, &[&salt]).await?;
        let body = self.password_message().await?;
        let arrived = Instant::now();
        let answer = body.strip_suffix(b"\0").unwrap_or(&body);
        match (hash.accepts(salt, answer), doubt) {
            (true, None) => Ok(Credential::Md5(hash.clone())),
            (true, Some(doubt)) => self.wrong_password(user, arrived, doubt).await,
            (false, _) => self.wrong_password(user, arrived, "the password does not fit").await,
        }
    }

    async fn ask_scram(
        &mut self,
        user: &str,
        verifier: ScramVerifier,
        credential: Option<Credential>,
        doubt: Option<&'static str>,
    ) -> Step<Credential> {
        let offer = match self.context.tls.end_point() {
            Some(hash) if self.stream.is_tls() => Offer::Plus(hash),
            _ => Offer::Plain,
        };
        let mechanisms = match offer {
            Offer::Plus(_) => format!("{}\0{}\0\0", scram::PLUS, scram::PLAIN),
            Offer::Plain => format!("{}\0\0", scram::PLAIN),
        };
        self.say(10, &[mechanisms.as_bytes()]).await?;

        let body = self.password_message().await?;
        let (mechanism, first) = sasl_initial(&body)?;
        let first = match first {
            Some(first) => first,
            // The mechanism was chosen without an initial response: RFC 4422 has the server send an empty challenge then.
            None => {
                self.say(11, &[]).await?;
                self.password_message().await?
            }
        };
        let (server, server_first) = ScramServer::start(verifier, &mechanism, offer, &first).map_err(scram_failed)?;
        self.say(11, &[server_first.as_bytes()]).await?;
        let last = self.password_message().await?;
        let arrived = Instant::now();
        let accepted = match server.finish(&last) {
            Ok(accepted) => accepted,
            Err(ScramError::WrongProof) => {
                return self.wrong_password(user, arrived, doubt.unwrap_or("the password does not fit")).await;
            }
            Err(error) => return Err(scram_failed(error)),
        };
        if let Some(doubt) = doubt {
            return self.wrong_password(user, arrived, doubt).await;
        }
        message::raw(&mut self.pending, b'R', &[&12u32.to_be_bytes(), accepted.server_final.as_bytes()]);
        Ok(credential
            .unwrap_or(Credential::ScramKeys { client_key: accepted.client_key, server_key: accepted.server_key }))
    }

    async fn wrong_password<T>(&self, user: &str, arrived: Instant, why: &str) -> Step<T> {
        sleep_until(arrived + FAILURE_DELAY).await;
        Err(Failure::Refuse(Box::new(Refusal {
            problem: Problem::new("28P01", format!("password authentication failed for user \"{user}\"")),
            reason: Some(format!("password authentication failed for user \"{user}\": {why}")),
        })))
    }

    /// Sends an authentication request, and what was pending before it.
    async fn say(&mut self, code: u32, parts: &[&[u8]]) -> Step<()> {
        let mut out = std::mem::take(&mut self.pending);
        let head = code.to_be_bytes();
        let parts: Vec<&[u8]> = std::iter::once(&head[..]).chain(parts.iter().copied()).collect();
        message::raw(&mut out, b'R', &parts);
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn password_message(&mut self) -> Step<Vec<u8>> {
        let received = self.inbox.message(&mut self.stream, PASSWORD_LIMIT).await;
        match received.map_err(|error| read_failed(error, "password packet"))? {
            (b'p', body) => Ok(body),
            (tag, _) => refuse("08P01", format!("expected password response, got message type {tag}")),
        }
    }
}

/// Mechanism and initial response of a SASLInitialResponse.
fn sasl_initial(body: &[u8]) -> Step<(String, Option<Vec<u8>>)> {
    let malformed = || Failure::from(Problem::new("08P01", "malformed SASL message"));
    let (mechanism, rest) = crate::wire::fields::cstr(body).ok_or_else(malformed)?;
    let mechanism = std::str::from_utf8(mechanism).map_err(|_| malformed())?.to_owned();
    let (length, data) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
    match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => Ok((mechanism, None)),
        length if usize::try_from(length) == Ok(data.len()) => Ok((mechanism, Some(data.to_vec()))),
        _ => Err(malformed()),
    }
}

fn scram_failed(error: ScramError) -> Failure {
    match error {
        ScramError::BindingNegotiation => Problem::new("28000", "SCRAM channel binding negotiation error")
            .detail(
                "The client supports SCRAM channel binding but thinks the server does not.  \
                 However, this server does support channel binding.",
            )
            .into(),
        ScramError::BindingMismatch => Problem::new("28000", "SCRAM channel binding check failed").into(),
        ScramError::Malformed(detail) => Problem::new("08P01", "malformed SCRAM message").detail(detail).into(),
        other => Problem::new("08P01", other.to_string()).into(),
    }
}
