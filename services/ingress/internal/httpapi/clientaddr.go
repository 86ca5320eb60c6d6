package httpapi

import (
	"net/http"
	"net/netip"
)

// clientKey returns what the limits of one client count for: the address that a
// connection comes from, or the /64 network of an IPv6 address, of which a
// client has all. Behind a proxy it is the address of the proxy.
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
