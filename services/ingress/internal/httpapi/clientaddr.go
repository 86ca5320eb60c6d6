package httpapi

import (
	"net/http"
	"net/netip"
)

// clientKey returns the key of a client for the limits of one client: the address of its connection, or the
// /64 network of an IPv6 address, because a client has the whole network. Behind a proxy that is not trusted
// it is the address of the proxy.
func clientKey(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr := at.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	if network, err := addr.Prefix(64); err == nil {
		return network.String()
	}
	return addr.String()
}
