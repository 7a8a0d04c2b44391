{{- define "adjoin.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "adjoin.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "adjoin.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "adjoin.labels" -}}
app.kubernetes.io/name: adjoin
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "adjoin.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Of the server's container and of whatever else runs in a pod of this chart. */}}
{{- define "adjoin.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "adjoin.containerPorts" -}}
- {name: health, containerPort: {{ .Values.server.grpcPort }}}
- {name: metrics, containerPort: {{ .Values.server.metricsPort }}}
{{- with .Values.server.httpPort }}
- {name: http, containerPort: {{ . }}}
{{- end }}
{{- end }}

{{- define "adjoin.args" -}}
- serve
{{- if eq .Values.mode "daemonset" }}
# --takeover: from the server that runs. --linger: after the next one has taken over, this one stays until its pod is
# deleted; it would be started again otherwise, and take the sockets back.
- --takeover
- --linger
{{- end }}
- --model-repository={{ .Values.models.path }}
- --socket-dir=/run/adjoin
- --grpc-addr=0.0.0.0:{{ .Values.server.grpcPort }}
- --metrics-addr=0.0.0.0:{{ .Values.server.metricsPort }}
{{- with .Values.server.httpPort }}
- --http-addr=0.0.0.0:{{ . }}
{{- end }}
{{- if .Values.config }}
- --config=/etc/adjoin/adjoin.toml
{{- end }}
- --log={{ .Values.server.log }}
- --log-format={{ .Values.server.logFormat }}
{{- range .Values.server.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* Volumes of the server but the one with the sockets. */}}
{{- define "adjoin.serverVolumes" -}}
{{- if eq .Values.models.source "image" }}
- name: adjoin-models
  image:
    reference: {{ .Values.models.image.reference | quote }}
    pullPolicy: {{ .Values.models.image.pullPolicy }}
{{- else if eq .Values.models.source "persistentVolumeClaim" }}
- name: adjoin-models
  persistentVolumeClaim:
    claimName: {{ .Values.models.persistentVolumeClaim.claimName }}
    readOnly: true
{{- end }}
{{- if .Values.config }}
- name: adjoin-config
  configMap:
    name: {{ include "adjoin.fullname" . }}
{{- end }}
{{- end }}

{{- define "adjoin.serverVolumeMounts" -}}
- {name: adjoin-sockets, mountPath: /run/adjoin}
{{- if ne .Values.models.source "inImage" }}
- {name: adjoin-models, mountPath: {{ .Values.models.path }}, readOnly: true}
{{- end }}
{{- if .Values.config }}
- {name: adjoin-config, mountPath: /etc/adjoin, readOnly: true}
{{- end }}
{{- end }}

{{/* A change of the configuration takes a new pod: the server reads it once. */}}
{{- define "adjoin.podAnnotations" -}}
{{- $checksum := dict }}
{{- if .Values.config }}
{{- $_ := set $checksum "checksum/adjoin-config" (.Values.config | sha256sum) }}
{{- end }}
{{- merge $checksum .Values.podAnnotations | toYaml }}
{{- end }}

{{/* The server's container, but for what the modes differ in. */}}
{{- define "adjoin.container" -}}
name: adjoin
image: {{ include "adjoin.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  {{- include "adjoin.args" . | nindent 2 }}
{{- with .Values.server.env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  {{- include "adjoin.containerPorts" . | nindent 2 }}
startupProbe:
  grpc: {port: {{ .Values.server.grpcPort }}, service: adjoin/ready}
  periodSeconds: 1
  failureThreshold: {{ .Values.server.startupSeconds }}
readinessProbe:
  grpc: {port: {{ .Values.server.grpcPort }}, service: adjoin/ready}
  periodSeconds: 5
livenessProbe:
  grpc: {port: {{ .Values.server.grpcPort }}, service: adjoin/live}
  periodSeconds: 10
  timeoutSeconds: 5
securityContext:
  runAsUser: {{ .Values.server.uid }}
  runAsGroup: {{ .Values.server.uid }}
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
  {{- include "adjoin.securityContext" . | nindent 2 }}
volumeMounts:
  {{- include "adjoin.serverVolumeMounts" . | nindent 2 }}
{{- end }}
