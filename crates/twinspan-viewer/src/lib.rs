//! A client for Second Life and OpenSimulator: for viewers, bots and tools.
//!
//! [`Client`] logs in and keeps an avatar connected, from a thread of its own:
//!
//! ```no_run
//! use twinspan_lludp::messages::ChatFromSimulator;
//! use twinspan_viewer::{
//!     Client, Grid, HandlerContext, HandlerError, LoginCredentials, NetworkEvent,
//!     TypedPacketHandler,
//! };
//!
//! struct PrintChat;
//!
//! impl TypedPacketHandler<ChatFromSimulator> for PrintChat {
//!     async fn handle(
//!         &self,
//!         packet: &ChatFromSimulator,
//!         _context: &HandlerContext,
//!     ) -> Result<(), HandlerError> {
//!         let chat = &packet.chat_data;
//!         println!("{}: {}", chat.from_name.to_text(), chat.message.to_text());
//!         Ok(())
//!     }
//! }
//!
//! # async fn quickstart(username: &str, password: &str) -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::new();
//! client.initialize().await?;
//! client.handler_registry.register_handler::<ChatFromSimulator, _>(PrintChat).await;
//!
//! let credentials = LoginCredentials::new(username, password).with_grid(Grid::SecondLifeMain);
//! let mut events = client.network_manager.subscribe();
//! client.connect(credentials).await?;
//! while let Ok(event) = events.recv().await {
//!     match event {
//!         NetworkEvent::Connected { session } => println!("Welcome, {}!", session.first_name),
//!         NetworkEvent::Error { error } => eprintln!("Network error: {error}"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Layers: [`Client`] over [`NetworkManager`] (status, events) over [`ViewerCore`] (login, circuits,
//! event queues, on one thread) over [`UdpTransport`] and `twinspan_http`. The core is written to the
//! seam: [`ViewerCore::run`] is a task on any node, a simulated one included. [`Bot`] has what an
//! avatar does in words of every day.
#![forbid(unsafe_code)]

mod assets;
mod bot;
mod bus;
mod caps;
mod client;
mod core;
mod credentials;
mod event;
mod features;
mod files;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod grid;
mod grid_info;
mod handle;
mod handlers;
mod inventory;
mod login;
mod lookup;
mod pilot;
mod proxies;
mod queue;
mod region;
mod seat;
mod session_info;
mod status;
mod summary;
mod transfer;
mod transport;
mod upload;
mod wait;
mod world;
mod xmlrpc;

pub use assets::{
    ASSET_BYTES_MAX, ASSET_REDIRECTS_MAX, ASSET_TIMEOUT, Asset, AssetError, AssetKind, ByteRange,
    fetch_asset,
};
pub use bot::{Bot, BotError, CHAT_BYTES_MAX};
pub use bus::{
    Degree, EVENT_BYTES_KEPT, EVENTS_KEPT, Event, EventBus, EventsEnded, Laggard, Subscription,
};
pub use caps::{CAPABILITIES, CAPABILITIES_MAX, Capabilities, SeedError, ask_seed};
pub use client::{Client, ClientHandle, InitializeError, NetworkManager};
pub use core::{CoreError, ReconnectPolicy, ViewerConfig, ViewerCore};
pub use credentials::{
    CREDENTIALS_BYTES_MAX, CredentialsError, GRID_VARIABLE, LoginCredentials, PASSWORD_VARIABLE,
    USER_VARIABLE,
};
pub use event::{Chat, DisconnectReason, InstantMessage, NetworkError, NetworkEvent, WorldEvent};
pub use features::{
    CHAT_RANGES, FEATURES_BYTES_MAX, FEATURES_TIMEOUT, FeaturesError, OpenSimFeatures,
    SimulatorFeatures, fetch_features,
};
pub use grid::{CustomGrid, Grid, GridUriError, LOGIN_TIMEOUT, PasswordRule};
pub use grid_info::{
    GRID_INFO_BYTES_MAX, GRID_INFO_FIELD_BYTES_MAX, GRID_INFO_FIELDS_MAX, GRID_INFO_KEPT,
    GRID_INFO_TIMEOUT, GRID_INFOS_MAX, GridInfo, GridInfoError, GridInfoService,
};
pub use handle::{
    Arrived, COMMANDS_MAX, Circuit, ConnectError, CoreHandle, DeliveryError, JourneyError,
};
pub use handlers::{
    HANDLER_QUEUE_MAX, HANDLER_RESERVE_MAX, HANDLERS_MAX, HandlerContext, HandlerError, HandlerId,
    HandlerRegistry, HandlerReport, PRIORITY_GRACE, RegisterError, Registration,
    TypedPacketHandler,
};
pub use inventory::{
    FETCH_BYTES_MAX, FOLDERS_MAX, FOLDERS_PER_FETCH_MAX, FetchError, Fetched, FolderContents,
    ITEMS_MAX, Inventory, InventoryItem, InventoryOwner, KnownFolder, fetch_folders,
};
pub use login::{
    AuthenticationService, LOGIN_REPLY_BYTES_MAX, LoginConfig, LoginError, MESSAGE_CHARS_MAX,
    MFA_HASHES_MAX, MfaStore, MfaStoreError, REDIRECT_WAIT_MAX, REDIRECTS_MAX,
};
pub use lookup::{LOOKUP_TIMEOUT, LOOKUPS_MAX, LookupError};
pub use pilot::{
    CONTROL_AHEAD, CONTROL_BACK, CONTROL_DOWN, CONTROL_FLY, CONTROL_LEFT, CONTROL_RIGHT,
    CONTROL_SIT_ON_GROUND, CONTROL_STAND_UP, CONTROL_UP, WalkError,
};
pub use proxies::{ASSOCIATIONS_MAX, ProxyManager, ProxyPool, ProxyReport, ProxySettings};
pub use queue::{
    Batch, BatchError, EventError, NextPoll, PollOutcome, QueueBody, QueueMessage, QueuePolicy,
    circuit_event, poll_body,
};
pub use region::RegionInfo;
pub use seat::{SEAT_TIMEOUT, SEATS_WAITED_FOR_MAX, SeatError};
pub use session_info::SessionInfo;
pub use status::{Cause, NetworkStatus};
pub use summary::SessionSummary;
pub use transfer::{
    TRANSFER_BYTES_MAX, TRANSFER_IDLE_MAX, TRANSFER_TIME_MAX, TRANSFERS_MAX, TransferError,
    TransferRequest,
};
pub use transport::{TransportError, UdpTransport};
pub use upload::{
    NewFile, UDP_UPLOAD_IDLE_MAX, UDP_UPLOAD_INLINE_BYTES_MAX, UDP_UPLOAD_TIME_MAX,
    UDP_UPLOADS_MAX, UPLOAD_BYTES_MAX, UPLOAD_TIMEOUT, UploadError, UploadKind, UploadWay,
    UploadedFile, upload_file,
};
/// Limits that stand nowhere else.
pub mod limits {
    pub use crate::caps::{SEED_ATTEMPTS_MAX, SEED_REPLY_BYTES_MAX, SEED_WAIT, SEED_WAIT_MAX};
    pub use crate::handlers::HANDLERS_AT_ONCE_MAX;
    pub use crate::inventory::FETCH_TIMEOUT;
    pub use crate::proxies::HTTP_CLIENTS_MAX;
    pub use crate::queue::{
        BUSY_PACE, EMPTY_PACE, ERROR_WAIT, ERROR_WAIT_STEP, ERRORS_MAX, EVENT_NAME_BYTES_MAX,
        EVENTS_PER_POLL_MAX, HELD_MIN, POLL_BYTES_MAX, POLL_ELEMENTS_MAX, POLL_TIMEOUT,
    };
    pub use crate::transport::PROXY_HEADER_BYTES_MAX;
    pub use crate::world::MAP_AVATARS_MAX;
}
pub use twinspan_http as http;
pub use twinspan_lludp as lludp;
pub use twinspan_xmlrpc::LoginForm;
pub use twinspan_xmlrpc::login::{AccountName, HardwareIds, Password, Secret, StartLocation};
pub use world::{Avatar, OBJECTS_MAX, SeenObject, Surroundings};
pub use xmlrpc::{XmlRpcClient, XmlRpcError};
