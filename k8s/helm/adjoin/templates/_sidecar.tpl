{{/*
The sidecar for pods of other charts. A chart that depends on this one includes these in its pod templates; the context is
that of the dependency, which Helm has in .Subcharts:

    metadata:
      labels: {{- include "adjoin.sidecar.podLabels" .Subcharts.adjoin | nindent 8 }}
      annotations: {{- include "adjoin.sidecar.podAnnotations" .Subcharts.adjoin | nindent 8 }}
    spec:
      securityContext: {{- include "adjoin.sidecar.podSecurityContext" .Subcharts.adjoin | nindent 8 }}
      initContainers: {{- include "adjoin.sidecar.initContainers" .Subcharts.adjoin | nindent 8 }}
      containers:
        - name: app
          volumeMounts: {{- include "adjoin.sidecar.clientVolumeMounts" .Subcharts.adjoin | nindent 12 }}
      volumes: {{- include "adjoin.sidecar.volumes" .Subcharts.adjoin | nindent 8 }}
*/}}

{{/* What the PodMonitor of this chart finds the pod by. Put your own labels beside them. */}}
{{- define "adjoin.sidecar.podLabels" -}}
adjoin/server: sidecar
adjoin/release: {{ .Release.Name }}
{{- end }}

{{- define "adjoin.sidecar.podAnnotations" -}}
{{- include "adjoin.podAnnotations" . }}
{{- end }}

{{/* The volume of the sockets belongs to the group, whatever users the containers have. */}}
{{- define "adjoin.sidecar.podSecurityContext" -}}
runAsNonRoot: true
fsGroup: {{ .Values.server.socketGroup }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* First in the list, so that later init containers may use the server. It ends after all containers of the pod. */}}
{{- define "adjoin.sidecar.initContainers" -}}
- restartPolicy: Always
  {{- include "adjoin.container" . | nindent 2 }}
  lifecycle:
    preStop:
      exec: {command: [adjoin, drain, --socket-dir=/run/adjoin]}
  resources:
    {{- toYaml .Values.server.resources | nindent 4 }}
{{- end }}

{{/* For each container that is a client. */}}
{{- define "adjoin.sidecar.clientVolumeMounts" -}}
- {name: adjoin-sockets, mountPath: /run/adjoin}
{{- end }}

{{/* The volume holds sockets and lock files; tensors are in memory that has no name. */}}
{{- define "adjoin.sidecar.volumes" -}}
- name: adjoin-sockets
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- include "adjoin.serverVolumes" . }}
{{- end }}
