// SPDX-License-Identifier: Apache-2.0

package patroni

import (
	"fmt"
	"strings"
)

// Timing is the shortest that Patroni's documentation allows: the key of a primary that is gone
// ends after ttl seconds, and loop_wait + 2 * retry_timeout must not be more than that.
const (
	ttl          = 20
	loopWait     = 1
	retryTimeout = 3
)

// settings is what one member of a cluster is told. It is YAML, of which JSON's strings are a
// part.
type settings struct {
	name, host               string
	rest, postgres           int // ports
	etcd                     []string
	data, programs, password string
	clients                  string // whence connections may come
	asynchronous, version3   bool
}

// api names the interface of etcd that is used. With version 3 of it, Patroni before 3.1 renews the
// primary's key without looking whose it is by then: a primary that stood still for
// longer than ttl takes it from the one that was promoted meanwhile, and what that one has
// acknowledged is rewound. Version 2 compares.
func (s *settings) api() string {
	if s.version3 {
		return "etcd3"
	}
	return "etcd"
}

// yaml is Patroni's configuration file.
func (s *settings) yaml() string {
	var hosts []string
	for _, h := range s.etcd {
		hosts = append(hosts, fmt.Sprintf("%q", h))
	}
	return fmt.Sprintf(`scope: valise
name: %[1]s
restapi:
  listen: %[15]s:%[2]d
  connect_address: %[15]s:%[2]d
%[14]s:
  hosts: [%[4]s]
bootstrap:
  dcs:
    ttl: %[8]d
    loop_wait: %[9]d
    retry_timeout: %[10]d
    maximum_lag_on_failover: 1048576
    primary_start_timeout: 0
    synchronous_mode: %[11]t
    synchronous_mode_strict: %[11]t
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        max_connections: 200
        wal_log_hints: "on"
        synchronous_commit: "on"
        fsync: "on"
  initdb:
    - encoding: UTF8
    - locale: C
    - data-checksums
    - wal-segsize: "1"
postgresql:
  listen: %[15]s:%[3]d
  connect_address: %[15]s:%[3]d
  data_dir: %[5]q
  bin_dir: %[6]q
  pgpass: %[13]q
  authentication:
    superuser: {username: %[12]s, password: %[7]q}
    replication: {username: replicator, password: %[7]q}
    rewind: {username: rewinder, password: %[7]q}
  parameters:
    unix_socket_directories: ""
    shared_buffers: 32MB
    password_encryption: scram-sha-256
    log_min_messages: warning
  pg_hba:
    - host replication replicator %[16]s scram-sha-256
    - host all all %[16]s scram-sha-256
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
`, s.name, s.rest, s.postgres, strings.Join(hosts, ", "), s.data, s.programs, s.password, ttl, loopWait, retryTimeout, !s.asynchronous, Superuser, s.data+".pass", s.api(), s.host, s.clients)
}

// Superuser owns every database.
const Superuser = "valise"
