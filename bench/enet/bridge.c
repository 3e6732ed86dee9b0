/* A narrow bridge to the system's ENet: hosts, peers by number, one unreliable channel. */
#include <enet/enet.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

typedef void (*on_packet)(void *context, size_t peer, const uint8_t *bytes, size_t length);

/* The libraries are compared with the same room in the kernel. */
static void widen(ENetHost *host) {
    int bytes = 32 * 1024 * 1024;
    setsockopt(host->socket, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    setsockopt(host->socket, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
}

ENetHost *bridge_listen(size_t peers, uint16_t *port) {
    ENetAddress address;
    enet_address_set_host(&address, "127.0.0.1");
    address.port = 0;
    ENetHost *host = enet_host_create(&address, peers, 1, 0, 0);
    if (host != NULL) {
        *port = host->address.port;
        widen(host);
    }
    return host;
}

ENetHost *bridge_dial(size_t peers) {
    ENetHost *host = enet_host_create(NULL, peers, 1, 0, 0);
    if (host != NULL) widen(host);
    return host;
}

int bridge_connect(ENetHost *host, uint16_t port) {
    ENetAddress address;
    enet_address_set_host(&address, "127.0.0.1");
    address.port = port;
    return enet_host_connect(host, &address, 1, 0) == NULL ? -1 : 0;
}

/* Handles all that waits; returns how the number of connected peers changed. */
int bridge_service(ENetHost *host, on_packet callback, void *context) {
    ENetEvent event;
    int change = 0;
    while (enet_host_service(host, &event, 0) > 0) {
        size_t peer = (size_t)(event.peer - host->peers);
        if (event.type == ENET_EVENT_TYPE_CONNECT) {
            change++;
            /* Its loss throttle would drop unreliable packets by itself. */
            enet_peer_throttle_configure(event.peer, 5000, ENET_PEER_PACKET_THROTTLE_SCALE, 0);
        } else if (event.type == ENET_EVENT_TYPE_DISCONNECT) {
            change--;
        } else if (event.type == ENET_EVENT_TYPE_RECEIVE) {
            callback(context, peer, event.packet->data, event.packet->dataLength);
            enet_packet_destroy(event.packet);
        }
    }
    return change;
}

int bridge_send(ENetHost *host, size_t peer, const uint8_t *bytes, size_t length) {
    ENetPeer *to = &host->peers[peer];
    if (to->state != ENET_PEER_STATE_CONNECTED) return -1;
    ENetPacket *packet = enet_packet_create(bytes, length, 0);
    if (packet == NULL) return -1;
    if (enet_peer_send(to, 0, packet) < 0) {
        enet_packet_destroy(packet);
        return -1;
    }
    return 0;
}

void bridge_flush(ENetHost *host) { enet_host_flush(host); }
