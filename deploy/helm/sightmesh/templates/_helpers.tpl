{{- define "sightmesh.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* labels (dict "root" $ "component" NAME) returns the labels of an object */}}
{{- define "sightmesh.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: sightmesh
{{ include "sightmesh.selector" . }}
{{- end -}}

{{- define "sightmesh.selector" -}}
{{ include "sightmesh.instance" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* instance returns the labels that every pod of the release has */}}
{{- define "sightmesh.instance" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* podLabels (dict "root" $ "component" NAME "values" VALUES) returns the labels of a pod */}}
{{- define "sightmesh.podLabels" -}}
{{ include "sightmesh.labels" . }}
{{- with merge (dict) (default dict .values.podLabels) .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sightmesh.image" -}}
{{- $i := .root.Values.image -}}
{{- with $i.registry }}{{ . }}/{{ end }}{{ $i.repository }}-{{ .component }}:{{ default .root.Chart.AppVersion $i.tag }}
{{- end -}}

{{- define "sightmesh.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sightmesh.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* pod (dict "root" $ "component" NAME "values" VALUES) returns the fields that every pod has */}}
{{- define "sightmesh.pod" -}}
{{- $all := .root.Values -}}
serviceAccountName: {{ include "sightmesh.serviceAccount" .root }}
automountServiceAccountToken: false
{{- with $all.podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $all.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $all.priorityClassName .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with default $all.nodeSelector .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $all.tolerations .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $all.affinity .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $all.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range $key, $constraint := $all.topologySpreadConstraints }}
  - topologyKey: {{ $key }}
    {{- toYaml $constraint | nindent 4 }}
    labelSelector:
      matchLabels: {{- include "sightmesh.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sightmesh.nats" -}}
{{- default (printf "nats://%s-nats:4222" (include "sightmesh.fullname" .)) .Values.nats.url -}}
{{- end -}}

{{/* natsFiles returns the files with credentials and certificates: flag, volume, key, source */}}
{{- define "sightmesh.natsFiles" -}}
{{- $n := .Values.nats -}}
{{- with $n.creds }}{{ if .secretName }}
- {flag: nats-creds, volume: nats-creds, key: {{ .key }}, secret: {{ .secretName }}}
{{- end }}{{ end }}
{{- with $n.nkey }}{{ if .secretName }}
- {flag: nats-nkey, volume: nats-nkey, key: {{ .key }}, secret: {{ .secretName }}}
{{- end }}{{ end }}
{{- with $n.user }}{{ if .secretName }}
- {flag: nats-password-file, volume: nats-user, key: {{ .passwordKey }}, secret: {{ .secretName }}}
{{- end }}{{ end }}
{{- with $n.token }}{{ if .secretName }}
- {flag: nats-token-file, volume: nats-token, key: {{ .key }}, secret: {{ .secretName }}}
{{- end }}{{ end }}
{{- with $n.tls }}{{ if .secretName }}
- {flag: nats-cert, volume: nats-tls, key: {{ .cert }}, secret: {{ .secretName }}}
- {flag: nats-key, volume: nats-tls, key: {{ .key }}, secret: {{ .secretName }}}
{{- end }}{{ end }}
{{- with $n.tlsCA }}
{{- if .secretName }}
- {flag: nats-ca, volume: nats-ca, key: {{ .key }}, secret: {{ .secretName }}}
{{- else if .configMapName }}
- {flag: nats-ca, volume: nats-ca, key: {{ .key }}, configMap: {{ .configMapName }}}
{{- end }}{{ end }}
{{- end -}}

{{- define "sightmesh.natsArgs" -}}
- --nats={{ include "sightmesh.nats" . }}
{{- range include "sightmesh.natsFiles" . | fromYamlArray }}
- --{{ .flag }}=/etc/{{ .volume }}/{{ .key }}
{{- end }}
{{- end -}}

{{- define "sightmesh.natsEnv" -}}
{{- with .Values.nats.user }}{{ if .secretName }}
- name: SIGHTMESH_NATS_USER
  valueFrom: {secretKeyRef: {name: {{ .secretName }}, key: {{ .usernameKey }}}}
{{- end }}{{ end }}
{{- end -}}

{{/* otlp returns the address of the OTLP receiver, or an empty string */}}
{{- define "sightmesh.otlp" -}}
{{- $jaeger := .Values.jaeger.enabled | ternary (printf "http://%s-jaeger:4318" (include "sightmesh.fullname" .)) "" -}}
{{- default $jaeger .Values.otlp.endpoint -}}
{{- end -}}

{{/* otelEnv (dict "root" $ "service" NAME "component" NAME) returns the variables of OpenTelemetry.
     The attributes of the resource follow the semantic conventions for Kubernetes. They are
     set for every signal. */}}
{{- define "sightmesh.otelEnv" -}}
{{- with include "sightmesh.otlp" .root }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .root.Values.otlp }}
{{- if .metrics }}
- {name: OTEL_METRICS_EXPORTER, value: otlp}
{{- end }}
{{- if .logs }}
- {name: OTEL_LOGS_EXPORTER, value: otlp}
{{- end }}
{{- end }}
- {name: K8S_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: K8S_POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: K8S_POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
- {name: K8S_NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ list
    (printf "service.instance.id=$(K8S_NAMESPACE).$(K8S_POD).%s" .service)
    "k8s.namespace.name=$(K8S_NAMESPACE)" "k8s.pod.name=$(K8S_POD)" "k8s.pod.uid=$(K8S_POD_UID)" "k8s.node.name=$(K8S_NODE)"
    (printf "k8s.deployment.name=%s-%s" (include "sightmesh.fullname" .root) .component)
    (printf "k8s.container.name=%s" .service)
    (printf "k8s.pod.label.app.kubernetes.io/instance=%s" .root.Release.Name)
    | join "," | quote }}
{{- end -}}

{{- define "sightmesh.natsMounts" -}}
{{- $seen := dict }}
{{- range include "sightmesh.natsFiles" . | fromYamlArray }}
{{- if not (hasKey $seen .volume) }}
- {name: {{ .volume }}, mountPath: /etc/{{ .volume }}, readOnly: true}
{{- $_ := set $seen .volume true }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "sightmesh.natsVolumes" -}}
{{- $seen := dict }}
{{- range include "sightmesh.natsFiles" . | fromYamlArray }}
{{- if not (hasKey $seen .volume) }}
- name: {{ .volume }}
  {{- if .secret }}
  secret: {secretName: {{ .secret }}, defaultMode: 288} # 0440
  {{- else }}
  configMap: {name: {{ .configMap }}}
  {{- end }}
{{- $_ := set $seen .volume true }}
{{- end }}
{{- end }}
{{- end -}}

{{/* workloads returns the Deployments of the services: service, component, values. A pool of
     workers has the values of its service, and its own values override them. */}}
{{- define "sightmesh.workloads" -}}
{{- $all := list -}}
{{- range $service := list "ingress" "detect" "classify" "results" -}}
{{- $v := index $.Values $service -}}
{{- $all = append $all (dict "service" $service "component" $service "values" $v) -}}
{{- range $pool, $own := $v.pools -}}
{{- $values := mergeOverwrite (deepCopy (omit $v "pools")) $own -}}
{{- $all = append $all (dict "service" $service "component" (printf "%s-%s" $service $pool) "values" $values) -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{/* pipelines (dict "root" $ "values" VALUES) returns the names of the pipelines that a worker serves */}}
{{- define "sightmesh.pipelines" -}}
{{- $names := list "text" "text-best" "text-tesseract" "faces" "objects" "codes" -}}
{{- if .values.serve -}}
{{- $names = .values.serve -}}
{{- else if .root.Values.pipelines -}}
{{- $names = list -}}
{{- range (fromYaml .root.Values.pipelines).pipelines }}{{ $names = append $names .name }}{{ end -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* unserved returns the names of the pipelines that no worker of detect serves */}}
{{- define "sightmesh.unserved" -}}
{{- $names := include "sightmesh.pipelines" (dict "root" . "values" dict) | fromJsonArray -}}
{{- range include "sightmesh.workloads" . | fromJsonArray -}}
{{- if eq .service "detect" -}}
{{- range include "sightmesh.pipelines" (dict "root" $ "values" .values) | fromJsonArray }}{{ $names = without $names . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* minReplicas (dict "values" VALUES) returns the smallest number of replicas of a workload */}}
{{- define "sightmesh.minReplicas" -}}
{{- if .values.autoscaling.enabled }}{{ .values.autoscaling.minReplicas }}{{ else }}{{ .values.replicas }}{{ end -}}
{{- end -}}

{{/* port (dict "url" URL "default" PORT) returns the port of the first URL */}}
{{- define "sightmesh.port" -}}
{{- $host := (urlParse (splitList "," .url | first)).host -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default .default -}}
{{- end -}}

{{/* check fails when values contradict each other */}}
{{- define "sightmesh.check" -}}
{{- $n := .Values.nats -}}
{{- $given := list -}}
{{- range $name := list "creds" "nkey" "user" "token" -}}
{{- if (index $n $name).secretName }}{{ $given = append $given (printf "nats.%s.secretName" $name) }}{{ end -}}
{{- end -}}
{{- if gt (len $given) 1 }}{{ fail (printf "%s: set only one of them" (join " and " $given)) }}{{ end -}}
{{- if and (not $n.url) (include "sightmesh.natsFiles" .) }}{{ fail "nats: credentials and certificates are for an existing NATS, but nats.url is empty" }}{{ end -}}
{{- if and $n.tlsCA.secretName $n.tlsCA.configMapName }}{{ fail "nats.tlsCA: set secretName or configMapName, not both" }}{{ end -}}
{{- with .Values.models }}
{{- $sources := list -}}
{{- if .existingClaim }}{{ $sources = append $sources "models.existingClaim" }}{{ end -}}
{{- if .pull }}{{ $sources = append $sources "models.pull" }}{{ end -}}
{{- if .image }}{{ $sources = append $sources "models.image" }}{{ end -}}
{{- if gt (len $sources) 1 }}{{ fail (printf "%s: set only one of them" (join " and " $sources)) }}{{ end -}}
{{- if and .image (semverCompare "<1.35.0-0" $.Capabilities.KubeVersion.Version) }}{{ fail "models.image: needs Kubernetes 1.35 or later" }}{{ end -}}
{{- end -}}
{{- if not (gt (int .Values.terminationGracePeriodSeconds) (add (int .Values.ingress.drainSeconds) 5 | int)) }}{{ fail "terminationGracePeriodSeconds: must be greater than ingress.drainSeconds plus 5" }}{{ end -}}
{{- if and (not $n.url) (gt (len (printf "%s-nats" (include "sightmesh.fullname" .))) 52) }}{{ fail (printf "%s-nats: the name of the NATS StatefulSet has more than 52 characters, so that Kubernetes cannot label its pods: set fullnameOverride" (include "sightmesh.fullname" .)) }}{{ end -}}
{{- if .Values.pipelines }}
{{- $file := fromYaml .Values.pipelines -}}
{{- if or $file.Error (not $file.pipelines) }}{{ fail (printf "pipelines: not a pipelines file: %s" (default "it has no pipelines" $file.Error)) }}{{ end -}}
{{- end -}}
{{- $known := include "sightmesh.pipelines" (dict "root" . "values" dict) | fromJsonArray -}}
{{- range include "sightmesh.workloads" . | fromJsonArray -}}
{{- range .values.serve -}}
{{- if not (has . $known) }}{{ fail (printf "serve: pipeline %s does not exist; the pipelines are %s" . (join ", " $known)) }}{{ end -}}
{{- end -}}
{{- $a := .values.autoscaling -}}
{{- if lt (int $a.maxReplicas) (int $a.minReplicas) }}{{ fail (printf "%s.autoscaling: maxReplicas is less than minReplicas" .component) }}{{ end -}}
{{- $full := printf "%s-%s" (include "sightmesh.fullname" $) .component -}}
{{- if gt (len $full) 63 }}{{ fail (printf "%s: the name %s has %d characters, and 63 are allowed" .component $full (len $full)) }}{{ end -}}
{{- end -}}
{{- if and (or .Values.otlp.metrics .Values.otlp.logs) (not .Values.otlp.endpoint) }}{{ fail "otlp.endpoint: metrics and logs need a receiver; Jaeger accepts only traces" }}{{ end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}{{ fail "httpRoute.parentRefs: must name the gateway" }}{{ end -}}
{{- end -}}
