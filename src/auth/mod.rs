//! stub
#[derive(Clone, Debug)]
pub enum Credential {
    None,
}
