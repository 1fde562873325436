//! Watches and logs over WebSocket, at the same addresses as without: each event, and each piece of a log, is a message.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf as _, Bytes, BytesMut};
use client::{Body, BoxError, is_upgrade};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use object_model::{ApiError, Reason};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

use crate::ApiServer;

/// How long a client may take to answer that the connection ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// How an answer is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A message of text for each line.
    Lines,
    /// A message of bytes for each frame, which begins with its length.
    Frames,
    /// A message of bytes for each piece.
    Pieces,
    /// A message of text for each piece, in base64.
    Base64,
}

impl Cut {
    /// The next message of what has come; with `over`, of what is left.
    fn next(self, rest: &mut BytesMut, over: bool) -> Option<Message> {
        match self {
            Self::Lines => {
                let end = rest.iter().position(|byte| *byte == b'\n');
                let line = rest.split_to(end.or_else(|| (over && !rest.is_empty()).then_some(rest.len()))?);
                if end.is_some() {
                    rest.advance(1);
                }
                Some(Message::text(String::from_utf8_lossy(&line).into_owned()))
            }
            Self::Frames => {
                let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
                if rest.len() < 4 + length {
                    return None;
                }
                rest.advance(4);
                Some(Message::binary(rest.split_to(length).freeze()))
            }
            Self::Pieces | Self::Base64 if rest.is_empty() => None,
            Self::Pieces => Some(Message::binary(rest.split().freeze())),
            Self::Base64 => Some(Message::text(BASE64.encode(rest.split()))),
        }
    }
}

/// A request to go on over WebSocket.
pub(crate) struct Knock {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    offered: Vec<String>,
}

impl Knock {
    /// Takes the wish out of a request, which is a plain one from then on; `None` where there is no such wish.
    ///
    /// # Errors
    /// 400 when its key is missing.
    pub fn of(request: &mut Request<Body>) -> Result<Option<Self>, ApiError> {
        let headers = request.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !is_upgrade(headers) || !text(header::UPGRADE).eq_ignore_ascii_case("websocket") {
            return Ok(None);
        }
        let key = text(header::SEC_WEBSOCKET_KEY);
        let accept = derive_accept_key(key.as_bytes()).parse().ok().filter(|_| !key.is_empty());
        let accept = accept.ok_or_else(|| ApiError::bad_request("the key of the WebSocket is missing"))?;
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        let offered = offered.flat_map(|value| value.split(',')).map(|name| name.trim().to_owned()).collect();
        let upgrade = hyper::upgrade::on(&mut *request);
        for name in [
            header::CONNECTION,
            header::UPGRADE,
            header::SEC_WEBSOCKET_KEY,
            header::SEC_WEBSOCKET_VERSION,
            header::SEC_WEBSOCKET_PROTOCOL,
            header::SEC_WEBSOCKET_EXTENSIONS,
        ] {
            request.headers_mut().remove(name);
        }
        Ok(Some(Self { upgrade, accept, offered }))
    }

    /// The protocol of a log.
    ///
    /// # Errors
    /// 403 when none is known of those that the client offers.
    pub fn log_protocol(&self) -> Result<(Option<String>, Cut), ApiError> {
        let known = self.offered.iter().find_map(|name| match name.as_str() {
            "binary.k8s.io" => Some((Some(name.clone()), Cut::Pieces)),
            "base64.binary.k8s.io" => Some((Some(name.clone()), Cut::Base64)),
            "" => Some((None, Cut::Pieces)),
            _ => None,
        });
        if self.offered.is_empty() {
            return Ok((None, Cut::Pieces));
        }
        known.ok_or_else(|| ApiError::new(Reason::Forbidden, "none of the offered protocols is known"))
    }

    /// The protocol of a watch is whatever the client calls it.
    pub fn watch_protocol(&self) -> Option<String> {
        self.offered.first().filter(|name| self.offered.len() == 1 && !name.is_empty()).cloned()
    }
}

impl ApiServer {
    /// Sends an answer message by message; one that is an error stays what it is.
    pub(crate) fn over_websocket(
        &self,
        knock: Knock,
        protocol: Option<String>,
        cut: Cut,
        answer: Response<Body>,
    ) -> Response<Body> {
        if answer.status() != StatusCode::OK {
            return answer;
        }
        let mut response = Response::new(client::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, knock.accept);
        if let Some(name) = protocol.and_then(|name| HeaderValue::from_str(&name).ok()) {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
        }
        let (cancel, upgrade) = (self.shutdown.clone(), knock.upgrade);
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                sent = send(upgrade, cut, answer.into_body()) => if let Err(error) = sent {
                    tracing::debug!("answer over WebSocket: {error}");
                }
            }
        });
        response
    }
}

async fn send(upgrade: OnUpgrade, cut: Cut, mut body: Body) -> Result<(), BoxError> {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgrade.await?), Role::Server, None).await;
    let (mut sink, mut source) = socket.split();
    let outward = async {
        match cut {
            // An empty message says that the connection stands.
            Cut::Pieces => sink.send(Message::binary(Bytes::new())).await?,
            Cut::Base64 => sink.send(Message::text("")).await?,
            Cut::Lines | Cut::Frames => {}
        }
        let mut rest = BytesMut::new();
        loop {
            let frame = body.frame().await.transpose()?;
            let over = frame.is_none();
            if let Some(data) = frame.and_then(|frame| frame.into_data().ok()) {
                rest.extend_from_slice(&data);
            }
            while let Some(message) = cut.next(&mut rest, over) {
                sink.send(message).await?;
            }
            if over {
                break;
            }
        }
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Message::Close(Some(frame))).await?;
        Ok::<_, BoxError>(())
    };
    let inward = async {
        // What a client says does not matter, only that it is there.
        while let Some(Ok(message)) = source.next().await {
            if message.is_close() {
                break;
            }
        }
    };
    let (mut inward, mut outward) = (std::pin::pin!(inward), std::pin::pin!(outward));
    tokio::select! {
        () = &mut inward => Ok(()),
        sent = &mut outward => {
            // The client may just leave.
            let _ = tokio::time::timeout(FAREWELL, inward).await;
            sent
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(cut: Cut, pieces: &[&[u8]]) -> Vec<Message> {
        let mut rest = BytesMut::new();
        let mut all = Vec::new();
        for (at, piece) in pieces.iter().enumerate() {
            rest.extend_from_slice(piece);
            all.extend(std::iter::from_fn(|| cut.next(&mut rest, at + 1 == pieces.len())));
        }
        all
    }

    #[test]
    fn an_answer_is_cut_into_events_or_pieces() {
        let lines = messages(Cut::Lines, &[b"{\"a\":1}\n{\"b\"", b":2}\n", b"end"]);
        assert_eq!(lines, ["{\"a\":1}", "{\"b\":2}", "end"].map(Message::text));
        let frames = messages(Cut::Frames, &[&[0, 0, 0, 2, 7], &[8, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(frames, [Message::binary(vec![7, 8]), Message::binary(vec![])]);
        assert_eq!(messages(Cut::Pieces, &[b"a\n", b"b"]), [Message::binary("a\n"), Message::binary("b")]);
        assert_eq!(messages(Cut::Base64, &[b"hi"]), [Message::text("aGk=")]);
    }
}
