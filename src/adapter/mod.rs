//! An engine tied to session, stream and admission; one file per protocol.
